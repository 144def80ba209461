"""Which modules are a model's blocks: ours, libraries', and those that the recipe names."""

import pytest
import torch

import distcls
from distcls.engine.strategies.blocks import checkpoint_activations, find_blocks
from distcls.errors import UserError


def classifier(backbone, neck=None):
    head = {"type": "LinearClsHead", "num_classes": 3, "loss": {"type": "CrossEntropyLoss"}}
    return distcls.build_model({"backbone": backbone, "neck": neck, "head": head}, image_size=(32, 32))


POOL = {"type": "GlobalAveragePooling"}


@pytest.mark.parametrize(
    ("backbone", "kind", "count"),
    [
        ({"type": "ResNet_CIFAR", "depth": 18}, "BasicBlock", 8),
        ({"type": "TimmBackbone", "model_name": "resnet18"}, "BasicBlock", 8),
        ({"type": "TimmBackbone", "model_name": "convnext_atto"}, "ConvNeXtBlock", 12),
        (
            {"type": "VisionTransformer", "arch": "deit-tiny", "img_size": 32, "patch_size": 8},
            "TransformerEncoderLayer",
            12,
        ),
        ({"type": "TorchvisionBackbone", "model_name": "resnet18"}, "BasicBlock", 8),
    ],
)
def test_a_backbone_s_own_blocks(backbone, kind, count):
    model = classifier(backbone, None if backbone["type"] == "VisionTransformer" else POOL)
    assert [type(block).__name__ for block in find_blocks(model, [])] == [kind] * count


def test_named_classes():
    model = classifier({"type": "ResNet_CIFAR", "depth": 18}, POOL)
    assert find_blocks(model, ["LinearClsHead"]) == [model.head]
    with pytest.raises(UserError) as caught:
        find_blocks(model, ["BasicBlok"])
    assert str(caught.value) == "no module of the model is a 'BasicBlok'. Did you mean 'BasicBlock'?"


def test_checkpointed_activations_change_no_number():
    model = classifier({"type": "ResNet_CIFAR", "depth": 18, "base_channels": 8, "stem_channels": 8}, POOL)
    images, target = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(images, target)["loss"].backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        checkpoint_activations(find_blocks(model, []))
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
