"""freeze: by module, by parameter, by pattern; what is frozen neither learns nor moves."""

import copy

import pytest
import torch

from distcls.errors import UserError
from distcls.models import ImageClassifier, build_classifier
from distcls.models.freezing import freeze


def model() -> ImageClassifier:
    backbone = {"type": "ResNet_CIFAR", "depth": 18, "stem_channels": 4, "base_channels": 4}
    head = {"type": "LinearClsHead", "num_classes": 3}
    block = {"backbone": backbone, "neck": {"type": "GlobalAveragePooling"}, "head": head}
    return build_classifier(block, (8, 8))


def test_a_module_stands_for_all_that_is_in_it() -> None:
    classifier = model()
    frozen = freeze(classifier, ["backbone.layer1", "backbone.conv1"])
    assert frozen[0] == "backbone.conv1.weight"
    assert all(name.startswith(("backbone.conv1", "backbone.layer1.")) for name in frozen)
    assert {name for name, one in classifier.named_parameters() if not one.requires_grad} == set(frozen)
    before = {name: entry.clone() for name, entry in classifier.state_dict().items()}
    for one in (classifier, copy.deepcopy(classifier)):
        one.eval().train()
        one(torch.randn(2, 3, 8, 8))
        moved = {name for name, entry in one.state_dict().items() if not torch.equal(entry, before[name])}
        assert moved
        assert not any(name.startswith("backbone.layer1.") for name in moved)


def test_patterns() -> None:
    classifier = model()
    assert all(name.endswith(".bias") for name in freeze(classifier, ["*.bias"]))
    assert classifier.backbone.layer1.training
    assert not classifier.head.fc.bias.requires_grad
    both = freeze(model(), ["backbone.layer?.0.bn1"])
    assert both == [f"backbone.layer{i}.0.bn1.{name}" for i in (1, 2, 3, 4) for name in ("weight", "bias")]


def test_a_pattern_that_names_nothing() -> None:
    classifier = model()
    with pytest.raises(UserError) as caught:
        freeze(classifier, ["backbone.layer1", "backbone.layr2"])
    assert str(caught.value) == "no module or parameter has the name 'backbone.layr2'. Did you mean 'backbone.layer2'?"
    assert all(one.requires_grad for one in classifier.parameters())


def test_a_name_without_its_part_is_understood() -> None:
    with pytest.raises(UserError) as caught:
        freeze(model(), ["layer1"])
    assert str(caught.value) == "no module or parameter has the name 'layer1'. Did you mean 'backbone.layer1'?"
