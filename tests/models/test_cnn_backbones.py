"""What the convolutional backbones' arguments do, beyond the numbers that the references fix."""

import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from distcls.errors import UserError
from distcls.models import build_classifier
from distcls.models.backbones import (
    VGG,
    AlexNet,
    DenseNet,
    EfficientNet,
    LeNet5,
    MobileNetV2,
    MobileNetV3,
    RegNet,
    RepVGG,
    ResNet,
    ResNeXt,
    SEResNet,
    SEResNeXt,
    ShuffleNetV2,
)
from distcls.models.backbones.repvgg_block import RepVGGBlock
from distcls.registry import BACKBONES
from tests.models.example_images import images

SMALL_REPVGG = {"num_blocks": (1, 3), "width_factor": (1, 1), "group_layer_map": None, "se_cfg": None}
TWO = {"strides": (2, 2), "dilations": (1, 1), "out_indices": (1,)}


def elements(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# -- the published networks: as many parameters as other people's have ------------------------------------------------

OTHERS = {
    "torchvision": [
        ("wide_resnet50_2", ResNet, {"depth": 50, "base_channels": 128, "expansion": 2}),
        ("resnext101_32x8d", ResNeXt, {"depth": 101, "width_per_group": 8}),
        ("resnext101_64x4d", ResNeXt, {"depth": 101, "groups": 64}),
        *((f"densenet{arch}", DenseNet, {"arch": arch}) for arch in ("161", "169", "201")),
        ("shufflenet_v2_x0_5", ShuffleNetV2, {"widen_factor": 0.5}),
        ("shufflenet_v2_x1_5", ShuffleNetV2, {"widen_factor": 1.5}),
        ("shufflenet_v2_x2_0", ShuffleNetV2, {"widen_factor": 2.0}),
    ],
    "timm": [
        ("seresnext50_32x4d", SEResNeXt, {"depth": 50}),
        ("mobilenetv2_050", MobileNetV2, {"widen_factor": 0.5}),
        ("mobilenetv2_140", MobileNetV2, {"widen_factor": 1.4}),
        *((f"tf_efficientnet_b{i}", EfficientNet, {"arch": f"b{i}"}) for i in range(1, 9)),
        ("tf_efficientnet_l2", EfficientNet, {"arch": "l2"}),
        ("efficientnet_es", EfficientNet, {"arch": "es"}),
        ("efficientnet_em", EfficientNet, {"arch": "em"}),
        *((f"repvgg_{a.lower()}", RepVGG, {"arch": a}) for a in ("A1", "A2", "B0", "B1", "B1g4", "B2", "B3g4", "D2se")),
        ("regnetx_008", RegNet, {"arch": "regnetx_800mf"}),
        ("regnetx_032", RegNet, {"arch": "regnetx_3.2gf"}),
        ("regnetx_120", RegNet, {"arch": "regnetx_12gf"}),
    ],
}
ROWS = [(library, *row) for library, rows in OTHERS.items() for row in rows]


@pytest.mark.parametrize(("library", "name", "cls", "arguments"), ROWS, ids=[row[1] for row in ROWS])
def test_parameter_counts(library: str, name: str, cls: type[nn.Module], arguments: dict[str, Any]) -> None:
    with torch.device("meta"):
        other = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name, weights=None)
        *_, classifier = (m for m in other.modules() if isinstance(m, nn.Linear))
        assert elements(cls(**arguments)) == elements(other) - elements(classifier)


@pytest.mark.parametrize("depth", [13, 16, 19])
def test_vgg_with_batch_norm_has_the_parameters_of_torchvision(depth: int) -> None:
    with torch.device("meta"):
        ours = VGG(depth, num_classes=1000, norm_cfg={"type": "BN"})
        assert elements(ours) == elements(torchvision.models.get_model(f"vgg{depth}_bn", weights=None))


@pytest.mark.parametrize("arch", ["large", "small_075", "small_050"])
def test_mobilenet_v3_has_the_parameters_of_timm(arch: str) -> None:
    name = {"large": "mobilenetv3_large_100"}.get(arch, f"mobilenetv3_{arch}")
    with torch.device("meta"):
        other = timm.create_model(name)
        head = elements(other.conv_head) + elements(other.classifier)
        assert elements(MobileNetV3(arch)) == elements(other) - head


# -- stages -----------------------------------------------------------------------------------------------------------

FROZEN = [
    (ResNeXt(50, base_channels=8, groups=2, stem_channels=8, frozen_stages=1), ("conv1", "bn1", "layer1")),
    (RegNet("regnetx_400mf", frozen_stages=2), ("conv1", "bn1", "layer1", "layer2")),
    (RepVGG(SMALL_REPVGG, base_channels=8, frozen_stages=1, **TWO), ("stem", "stage_1")),
    (MobileNetV2(0.25, frozen_stages=2), ("conv1", "layer1", "layer2")),
    (MobileNetV3("small_050", frozen_stages=2), ("layer0", "layer1", "layer2")),
    (ShuffleNetV2(0.5, frozen_stages=1), ("conv1", "layers.0")),
    (VGG(11, norm_cfg={"type": "BN"}, frozen_stages=1), ("features.0", "features.1")),
    (DenseNet({"growth_rate": 4, "depths": (1, 2), "init_channels": 8}, frozen_stages=1), ("stem", "stages.0", "transitions.0")),
    (EfficientNet("b0", frozen_stages=2), ("layers.0", "layers.1")),
]  # fmt: skip


def under(name: str, parts: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize(("model", "parts"), FROZEN, ids=[type(model).__name__ for model, _ in FROZEN])
def test_frozen_stages_neither_learn_nor_move(model: nn.Module, parts: tuple[str, ...]) -> None:
    model.train()
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}
    model(images())
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        name for name, _ in model.named_parameters() if under(name, parts)
    }
    still = {key for key, buffer in model.named_buffers() if torch.equal(buffer, before[key])}
    assert still == {key for key in before if under(key, parts)}


@pytest.mark.parametrize("cls", [MobileNetV2, MobileNetV3, ShuffleNetV2, EfficientNet])
def test_norm_eval_keeps_the_running_averages_but_learns_the_scale(cls: type[nn.Module]) -> None:
    model = cls(norm_eval=True).train()
    model(images())[0].sum().backward()
    assert all((buffer == 0).all() for name, buffer in model.named_buffers() if "running_mean" in name)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (MobileNetV2(out_indices=(0, 2, 7)), [(16, 16), (32, 4), (1280, 1)]),
        (MobileNetV2(1.5, out_indices=(7,)), [(1920, 1)]),
        (MobileNetV3("large", out_indices=(0, 16)), [(16, 16), (960, 1)]),
        (ShuffleNetV2(out_indices=(0, 1, 2, 3)), [(116, 4), (232, 2), (464, 1), (1024, 1)]),
        (EfficientNet(out_indices=tuple(range(7))), [(32, 16), (16, 16), (24, 8), (40, 4), (112, 2), (320, 1), (1280, 1)]),
        (VGG(11, out_indices=(0, 4)), [(64, 16), (512, 1)]),
        (VGG(11, with_last_pool=False), [(512, 2)]),
        (DenseNet(out_indices=(0, -1)), [(128, 4), (1024, 1)]),
        (RegNet("regnetx_400mf", out_indices=(0, 1, 2, 3)), [(32, 8), (64, 4), (160, 2), (384, 1)]),
        (RepVGG("A0", out_indices=(0, 3)), [(48, 8), (1280, 1)]),
        (RepVGG(SMALL_REPVGG, **{**TWO, "dilations": (1, 2), "strides": (2, 1)}, add_ppf=True), [(128, 8)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_maps(model: nn.Module, shapes: list[tuple[int, int]]) -> None:
    assert [(one.shape[1], one.shape[2]) for one in model.eval()(images())] == shapes


def test_squeeze_ratio() -> None:
    block = SEResNet(50, base_channels=16, se_ratio=4).layer1[0]
    assert block.se_layer.conv1.conv.out_channels == 64 // 4


def test_regnet_with_a_bottleneck_fills_its_groups() -> None:
    arch = {"w0": 16, "wa": 8.0, "wm": 2.0, "group_w": 6, "depth": 2, "bot_mul": 0.5}
    block = RegNet(arch, strides=(2, 2), dilations=(1, 1), out_indices=(1,)).layer1[0]
    assert (block.conv3.out_channels, block.conv2.out_channels, block.conv2.groups) == (12, 6, 1)


def test_drop_path_rate_grows_linearly_to_the_last_block() -> None:
    rates = [m.drop_path.drop_prob for m in EfficientNet("b0", drop_path_rate=0.3).modules() if hasattr(m, "drop_path")]
    assert rates == pytest.approx([0.02 * i for i in range(16)])


# -- RepVGG's two forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"group_layer_map": {2: 2, 3: 4}}, {"se_cfg": {"ratio": 4, "divisor": 1}}],
    ids=["plain", "groups", "se"],
)
def test_deployed_repvgg_gives_the_same_maps(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = RepVGG({**SMALL_REPVGG, **settings}, base_channels=8, **{**TWO, "dilations": (1, 2)}, frozen_stages=1)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for entry in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(entry)
        norm.running_var.uniform_(0.5, 2)
    (expected,) = model.eval()(images())
    deployed = copy.deepcopy(model)
    deployed.switch_to_deploy()
    (found,) = deployed(images())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not any("branch_1x1" in key or "norm" in key for key in deployed.state_dict())
    assert not deployed.stage_1[0].branch_reparam.weight.requires_grad
    assert deployed.stage_2[0].branch_reparam.weight.requires_grad
    # its weights load into a model that is built deployed, and switching again changes nothing
    built = RepVGG({**SMALL_REPVGG, **settings}, base_channels=8, **{**TWO, "dilations": (1, 2)}, deploy=True).eval()
    built.load_state_dict(deployed.state_dict())
    built.switch_to_deploy()
    assert torch.equal(built(images())[0], found)


def test_a_recipe_s_groups_have_texts_for_keys() -> None:
    """YAML's numbers are refused as keys, and quoted ones were of no block."""
    model = RepVGG({**SMALL_REPVGG, "group_layer_map": {"2": 2}}, base_channels=8, **TWO)
    assert [block.groups for block in model.modules() if isinstance(block, RepVGGBlock)] == [1, 1, 2, 1, 1]


def test_mobilenet_v3_has_no_layer_behind_its_last() -> None:
    assert all(not one.requires_grad for one in MobileNetV3("small_050", frozen_stages=12).parameters())
    with pytest.raises(UserError) as caught:
        MobileNetV3("small_050", frozen_stages=13)
    assert str(caught.value) == "MobileNetV3.frozen_stages: got 13, expected -1 to 12"


def test_only_batch_norm_can_be_folded() -> None:
    block = RepVGGBlock(4, 4, norm_cfg={"type": "GN", "num_groups": 2})
    with pytest.raises(UserError) as caught:
        block.switch_to_deploy()
    assert str(caught.value) == "RepVGG.switch_to_deploy: got GroupNorm in norm_cfg, expected BN or SyncBN"


# -- networks with a classifier of their own --------------------------------------------------------------------------


def test_lenet5_with_its_classifier_is_a_whole_model() -> None:
    block = {"backbone": {"type": "LeNet5", "num_classes": 10, "in_channels": 3}, "head": {"type": "ClsHead"}}
    model = build_classifier(block, (32, 32)).train()
    out = model(images()[:1], torch.tensor([3]))
    assert set(out) == {"loss", "top1"}
    out["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "size", "shape"),
    [(LeNet5(), 32, (120, 1, 1)), (AlexNet(), 96, (256, 2, 2)), (VGG(11), 64, (512, 2, 2))],
)
def test_without_classes_they_give_maps(model: nn.Module, size: int, shape: tuple[int, ...]) -> None:
    (found,) = model(torch.zeros(1, getattr(model, "in_channels", 3), size, size))
    assert tuple(found.shape[1:]) == shape


def test_vgg_gives_its_scores_after_the_maps_asked_for() -> None:
    with torch.device("meta"):
        maps = VGG(11, num_classes=7, out_indices=(0,))(torch.zeros(2, 3, 224, 224))
    assert [tuple(one.shape) for one in maps] == [(2, 64, 112, 112), (2, 7)]


def test_vgg_draws_its_classifier_narrow() -> None:
    model = VGG(11, num_stages=1, dilations=(1,), norm_cfg={"type": "BN"})
    model.classifier = nn.Sequential(nn.Linear(100, 100))
    model.init_weights()
    assert model.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (model.features[0].bn.weight == 1).all()


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "ResNeXt", "depth": 18}, "ResNeXt.depth: got 18, expected one of 50, 101, 152"),
        ({"type": "SEResNeXt", "depth": 34}, "SEResNeXt.depth: got 34, expected one of 50, 101, 152"),
        ({"type": "MobileNetV2", "out_indices": (8,)}, "MobileNetV2.out_indices: got (8,), expected numbers from -8 to 7"),
        ({"type": "MobileNetV2", "frozen_stages": 9}, "MobileNetV2.frozen_stages: got 9, expected -1 to 8"),
        ({"type": "MobileNetV3", "arch": "tiny"}, "MobileNetV3.arch: got 'tiny', expected one of small, small_075, small_050, large"),
        ({"type": "ShuffleNetV2", "widen_factor": 0.75}, "ShuffleNetV2.widen_factor: got 0.75, expected one of 0.5, 1.0, 1.5, 2.0"),
        ({"type": "VGG", "depth": 12}, "VGG.depth: got 12, expected one of 11, 13, 16, 19"),
        ({"type": "VGG", "depth": 11, "num_stages": 6}, "VGG.num_stages: got 6, expected 1 to 5"),
        ({"type": "VGG", "depth": 11, "num_stages": 3}, "VGG.dilations: got 5 of them, expected one for each of 3 stages"),
        ({"type": "VGG", "depth": 11, "num_stages": 1, "dilations": (1,), "num_classes": 9}, "VGG.num_stages: got 1, but the classifier of num_classes needs all 5 stages"),
        ({"type": "EfficientNet", "arch": "b9"}, "EfficientNet.arch: got 'b9', expected one of b0, b1, b2, b3, b4, b5, b6, b7, b8, l2, es, em, el"),
        ({"type": "DenseNet", "arch": "1210"}, "DenseNet.arch: got '1210', expected one of 121, 169, 201, 161. Did you mean '121'?"),
        ({"type": "DenseNet", "arch": {"growth_rate": 4}}, "DenseNet.arch: got a mapping with growth_rate, expected growth_rate, depths, init_channels"),
        ({"type": "RepVGG", "arch": SMALL_REPVGG, "out_indices": (1,)}, "RepVGG.strides: got 4 of them, expected one for each of 2 stages"),
        ({"type": "RegNet", "arch": "regnetx_400mf", "dilations": (1, 1)}, "RegNet.dilations: got 2 of them, expected one for each of 4 stages"),
    ],
)  # fmt: skip
def test_messages(block: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        BACKBONES.build(block)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (LeNet5, 28, "LeNet5: with num_classes it takes images of 32 x 32 pixels, got 28 x 28"),
        (
            AlexNet,
            96,
            "AlexNet: with num_classes it takes images of 224 x 224 pixels, whose last map is 6 x 6; got one of 2 x 2",
        ),
    ],
)
def test_images_of_a_size_that_the_classifier_cannot_take(model: type[nn.Module], size: int, message: str) -> None:
    with torch.device("meta"):
        built = model(num_classes=10)
        image = torch.zeros(1, getattr(built, "in_channels", 3), size, size)
    with pytest.raises(UserError) as caught:
        built(image)
    assert str(caught.value) == message
