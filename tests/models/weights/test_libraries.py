"""Models of torchvision and timm with random weights: their file in, the same logits out, for every mapping there is.

Where the two differ by design (poolings, heads in the backbone) the block below says how to make ours the same.
"""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from distcls.models import ImageClassifier, build_classifier
from distcls.models.weights import load_checkpoint, read_checkpoint

GAP = {"type": "GlobalAveragePooling"}
TINY_BN = {"norm_cfg": {"type": "BN", "eps": 1e-5}}
STACKED = {"type": "StackedLinearClsHead", "mid_channels": [1024], "act_cfg": {"type": "HSwish"}}
VIT = {"type": "VisionTransformerClsHead"}

# library, its name, our backbone, neck, head, side of the images, arguments for the library
CASES = [
    ("torchvision", "resnet18", {"type": "ResNet", "depth": 18}),
    ("torchvision", "wide_resnet50_2", {"type": "ResNet", "depth": 50, "stem_channels": 64, "base_channels": 128, "expansion": 2}),
    ("torchvision", "resnext50_32x4d", {"type": "ResNeXt", "depth": 50, "groups": 32, "width_per_group": 4}),
    ("torchvision", "regnet_x_800mf", {"type": "RegNet", "arch": "regnetx_800mf"}),
    ("torchvision", "densenet121", {"type": "DenseNet", "arch": "121"}),
    ("torchvision", "mobilenet_v2", {"type": "MobileNetV2"}),
    ("torchvision", "mobilenet_v3_small", {"type": "MobileNetV3", "arch": "small"}, GAP, STACKED),
    ("torchvision", "shufflenet_v2_x1_0", {"type": "ShuffleNetV2"}),
    ("torchvision", "vgg11", {"type": "VGG", "depth": 11, "num_classes": 10}, None, {"type": "ClsHead"}, 224),
    ("torchvision", "alexnet", {"type": "AlexNet", "num_classes": 10}, None, {"type": "ClsHead"}, 224),
    ("torchvision", "vit_b_32", {"type": "VisionTransformer", "arch": "base", "patch_size": 32, "img_size": 64}, None, VIT, 64, {"image_size": 64}),
    ("torchvision", "swin_t", {"type": "SwinTransformer", "arch": "tiny"}, GAP, None, 224),
    ("torchvision", "convnext_tiny", {"type": "ConvNeXt", "arch": "tiny"}, None),
    ("timm", "resnet50c", {"type": "ResNetV1c", "depth": 50}),
    ("timm", "resnet50d", {"type": "ResNetV1d", "depth": 50}),
    ("timm", "seresnext50_32x4d", {"type": "SEResNeXt", "depth": 50, "groups": 32, "width_per_group": 4}),
    ("timm", "regnetx_004", {"type": "RegNet", "arch": "regnetx_400mf"}),
    ("timm", "mobilenetv2_100", {"type": "MobileNetV2"}),
    ("timm", "mobilenetv3_small_100", {"type": "MobileNetV3", "arch": "small", **TINY_BN}, GAP, STACKED),
    ("timm", "tf_efficientnet_b1", {"type": "EfficientNet", "arch": "b1"}),
    ("timm", "vgg11_bn", {"type": "VGG", "depth": 11, "norm_cfg": {"type": "BN"}, "num_classes": 10}, None, {"type": "ClsHead"}, 224),
    ("timm", "repvgg_a0", {"type": "RepVGG", "arch": "A0"}),
    ("timm", "vit_small_patch16_224", {"type": "VisionTransformer", "arch": "deit-small", "img_size": 64}, None, VIT, 64, {"img_size": 64}),
    ("timm", "vit_base_patch32_clip_224", {"type": "VisionTransformer", "arch": "base", "img_size": 64, "patch_size": 32, "pre_norm": True, "norm_cfg": {"type": "LN", "eps": 1e-5}}, None, VIT, 64, {"img_size": 64}),
    ("timm", "deit_tiny_distilled_patch16_224", {"type": "DistilledVisionTransformer", "arch": "deit-tiny", "img_size": 64}, None, {"type": "DeiTClsHead"}, 64, {"img_size": 64}),
    ("timm", "swin_tiny_patch4_window7_224", {"type": "SwinTransformer", "arch": "tiny", "window_size": 4, "img_size": 128}, GAP, None, 128, {"img_size": 128, "window_size": 4}),
    ("timm", "convnext_atto", {"type": "ConvNeXt", "arch": "atto"}, None),
    ("timm", "convnextv2_atto", {"type": "ConvNeXt", "arch": "atto", "use_grn": True, "layer_scale_init_value": 0.0}, None),
]  # fmt: skip


def theirs(library: str, name: str, **kwargs) -> nn.Module:
    """Their model with weights, averages and position tables that all matter."""
    torch.manual_seed(0)
    model = (
        timm.create_model(name, num_classes=10, **kwargs)
        if library == "timm"
        else torchvision.models.get_model(name, weights=None, num_classes=10, **kwargs)
    )
    for entry_name, entry in model.state_dict().items():
        if entry.is_floating_point() and (entry.ndim < 2 or "table" in entry_name or "embed" in entry_name):
            noise = torch.randn(entry.shape) * 0.1
            entry.copy_(
                1 + noise.abs() if entry.ndim == 1 and "bias" not in entry_name and "mean" not in entry_name else noise
            )
        elif entry.is_floating_point() and (
            "head" in entry_name or "classifier" in entry_name or entry_name.startswith("fc.")
        ):
            entry.normal_(std=0.1)
    return model.eval()


def ours(backbone: dict, neck: dict | None = GAP, head: dict | None = None, size: int = 64) -> ImageClassifier:
    head = dict(head or {"type": "LinearClsHead"})
    if head["type"] != "ClsHead":
        head["num_classes"] = 10
    return build_classifier({"backbone": backbone, "neck": neck, "head": head}, (size, size)).eval()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_equal_logits(case: tuple, tmp_path: Path) -> None:
    library, name, backbone, *rest = case
    parts, size, arguments = rest[:2], (rest[2] if len(rest) > 2 else 64), (rest[3] if len(rest) > 3 else {})
    source, model = theirs(library, name, **arguments), ours(backbone, *parts, size=size)
    file = tmp_path / "weights.safetensors"  # which keeps no order of its entries
    safetensors.torch.save_file({key: value.contiguous() for key, value in source.state_dict().items()}, file)
    report = load_checkpoint(model, read_checkpoint(file))
    assert report.match == 1.0
    assert not report.missing
    assert all("relative_position_index" in one or "attn_mask" in one for one in report.unused)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected, found = source(images), model(images)
    assert (found - expected).abs().max() <= 2e-4 * expected.abs().max(), report.lines()
    assert expected.std() > 1e-3
