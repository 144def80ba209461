"""What every backbone of ours keeps, shown on a small configuration of each: one line of BACKBONE_ROWS."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distcls import models  # noqa: F401  (registers them)
from distcls.registry import BACKBONES


@dataclass
class Row:
    """A backbone at a size at which its tests take a second or two.

    type, arguments: its block in a recipe. size: height and width of the images in pixels; the last map should have
    several positions, or BatchNorm's gradients vanish over a batch of two. checkpoint: the argument that switches
    activation checkpointing on, where it offers any. name: to tell two rows of one type apart.
    """

    type: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    checkpoint: str | None = "with_cp"
    name: str = ""

    def build(self, **more: Any) -> nn.Module:
        torch.manual_seed(0)
        return BACKBONES.build({"type": self.type, **self.arguments, **more})

    def images(self, model: nn.Module) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(2, getattr(model, "in_channels", 3), self.size, self.size, generator=generator)


TWO_STAGES = {"num_stages": 2, "strides": (1, 2), "dilations": (1, 1), "out_indices": (0, 1), "stem_channels": 8}
REGNET = {"w0": 8, "wa": 4, "wm": 2, "group_w": 4, "depth": 4, "bot_mul": 1.0}
REPVGG = {"num_blocks": (1, 2), "width_factor": (1, 1), "group_layer_map": {2: 2}, "se_cfg": None, "stem_channels": 8}
VIT = {"img_size": 32, "patch_size": 8, "drop_path_rate": 0.1}
VIT["arch"] = {"embed_dims": 16, "num_layers": 3, "num_heads": 2, "feedforward_channels": 32}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "out_indices": (0, 1), "drop_path_rate": 0.1}
SWIN["arch"] = {"embed_dims": 8, "depths": (2, 2), "num_heads": (1, 2)}

BACKBONE_ROWS = [
    Row("ResNet", {"depth": 18, "base_channels": 8, "drop_path_rate": 0.2, **TWO_STAGES}, 32),
    Row("ResNetV1c", {"depth": 18, "base_channels": 8, **TWO_STAGES}, 32),
    Row("ResNetV1d", {"depth": 50, "base_channels": 8, **TWO_STAGES}, 32),
    Row("ResNet_CIFAR", {"depth": 18, "base_channels": 8, **TWO_STAGES}, 16),
    Row("ResNet", {"depth": 50, "base_channels": 16, "expansion": 2, **TWO_STAGES}, 32, name="WideResNet"),
    Row("ResNeXt", {"depth": 50, "base_channels": 8, "groups": 4, "width_per_group": 2, **TWO_STAGES}, 32),
    Row("SEResNet", {"depth": 50, "base_channels": 16, **TWO_STAGES}, 32),
    Row("SEResNeXt", {"depth": 50, "base_channels": 16, "groups": 4, "width_per_group": 2, **TWO_STAGES}, 32),
    Row("RegNet", {"arch": REGNET, "stem_channels": 8, "strides": (2, 2), "dilations": (1, 1), "out_indices": (1,)}, 32),
    Row("RepVGG", {"arch": REPVGG, "base_channels": 8, "strides": (2, 2), "dilations": (1, 1), "out_indices": (0, 1)}),
    Row("MobileNetV2", {"widen_factor": 0.25}),
    Row("MobileNetV3", {"arch": "small_050"}),
    Row("ShuffleNetV2", {"widen_factor": 0.5}),
    Row("VGG", {"depth": 11, "norm_cfg": {"type": "BN"}, "num_stages": 3, "dilations": (1, 1, 1), "out_indices": (0, 2)}, 16, None),
    Row("DenseNet", {"arch": {"growth_rate": 4, "depths": (2, 6), "init_channels": 8}}, 32, "memory_efficient"),
    Row("EfficientNet", {"arch": "b0", "drop_path_rate": 0.1}),
    Row("EfficientNet", {"arch": "es", "drop_path_rate": 0.1}, name="EfficientNet-EdgeTPU"),
    Row("AlexNet", {}, 96, None),
    Row("LeNet5", {"num_classes": 10}, 32, None),
    Row("ConvNeXt", {"arch": {"depths": (1, 2), "channels": (8, 16)}, "out_indices": (0, 1)}, 32),
    Row("ConvNeXt", {"arch": {"depths": (1, 2), "channels": (8, 16)}, "use_grn": True, "layer_scale_init_value": 0.0, "gap_before_final_norm": False}, 32, name="ConvNeXtV2"),
    Row("VisionTransformer", {**VIT, "out_type": "raw"}, 32),
    Row("VisionTransformer", {**VIT, "out_type": "avg_featmap", "pre_norm": True, "layer_scale_init_value": 0.1}, 32, name="CLIP"),
    Row("DistilledVisionTransformer", VIT, 32),
    Row("SwinTransformer", SWIN, 32),
    Row("TimmBackbone", {"model_name": "convnextv2_atto", "depths": (1, 1, 1, 1), "dims": (8, 8, 8, 16)}, 64, None),
    Row("TorchvisionBackbone", {"model_name": "shufflenet_v2_x0_5"}, 64, None),
]  # fmt: skip
every_backbone = pytest.mark.parametrize("row", BACKBONE_ROWS, ids=[row.name or row.type for row in BACKBONE_ROWS])


def outputs(found: Any) -> list[Tensor]:
    """The tensors of a backbone's output: a tuple of maps, of tokens, or one of them."""
    return [found] if isinstance(found, Tensor) else [one for part in found for one in outputs(part)]


def assert_same(found: Any, expected: Any) -> None:
    """Equal up to the rounding of another order of additions, relative to the largest value."""
    for a, b in zip(outputs(found), outputs(expected), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 2e-5 * b.abs().max()


def step(model: nn.Module, images: Tensor) -> tuple[list[Tensor], int]:
    """Output, gradients and buffers after one step in training mode, and the bytes that autograd kept for it."""
    kept = 0

    def keep(saved: Tensor) -> Tensor:
        nonlocal kept
        kept += saved.nbytes
        return saved

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        maps = outputs(model.train()(images))
    sum((one * torch.linspace(-1, 1, one.numel()).view_as(one)).sum() for one in maps).backward()
    return [*(one.detach() for one in maps), *(p.grad for p in model.parameters()), *model.buffers()], kept


def test_every_backbone_has_a_row() -> None:
    ours = {name for name in BACKBONES.names() if BACKBONES[name].__module__.startswith("distcls.")}
    assert {row.type for row in BACKBONE_ROWS} == ours


@every_backbone
def test_gradients_reach_every_parameter(row: Row) -> None:
    model = row.build()
    step(model, row.images(model))
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@every_backbone
def test_compiled_model_gives_the_same_output(row: Row) -> None:
    model = row.build().eval()
    images = row.images(model)
    torch.compiler.reset()
    with torch.no_grad():
        assert_same(torch.compile(model, backend="aot_eager", fullgraph=True)(images), model(images))


@pytest.mark.slow  # half a minute each: inductor compiles C++
@pytest.mark.parametrize("kind", ["ResNet_CIFAR", "VisionTransformer"])
def test_inductor_gives_the_same_output(kind: str) -> None:
    row = next(row for row in BACKBONE_ROWS if row.type == kind)
    model = row.build().eval()
    images = row.images(model)
    torch.compiler.reset()
    with torch.no_grad():
        for got, expected in zip(outputs(torch.compile(model)(images)), outputs(model(images)), strict=True):
            assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@every_backbone
def test_exported_model_gives_the_same_output(row: Row) -> None:
    model = row.build().eval()
    images = row.images(model)
    assert_same(torch.export.export(model, (images,)).module()(images), model(images))


@every_backbone
def test_channels_last_gives_the_same_output(row: Row) -> None:
    model = row.build().eval()
    images = row.images(model)
    expected = model(images)
    assert_same(model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("row", [row for row in BACKBONE_ROWS if row.checkpoint], ids=lambda row: row.name or row.type)
def test_checkpointing_gives_the_same_step_and_keeps_fewer_bytes(row: Row) -> None:
    plain, checkpointed = row.build(), row.build(**{row.checkpoint: True})
    images = row.images(plain)
    (expected, kept), (found, kept_checkpointed) = step(plain, images), step(checkpointed, images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert kept_checkpointed < 0.85 * kept


def test_checkpointing_compiles() -> None:
    """run_checkpointed takes another way under the compiler; BatchNorm must count a batch once there too."""
    (row,) = (row for row in BACKBONE_ROWS if row.type == "RepVGG")
    plain, checkpointed = row.build(), row.build(with_cp=True)
    images = row.images(plain)
    compiled = torch.compile(checkpointed, backend="aot_eager", fullgraph=True)
    for found, expected in zip(step(compiled, images)[0], step(plain, images)[0], strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@every_backbone
def test_builds_on_the_meta_device_with_the_same_entries(row: Row) -> None:
    with torch.device("meta"):
        without_data = row.build()
    entries = {key: entry.shape for key, entry in without_data.state_dict().items()}
    assert entries == {key: entry.shape for key, entry in row.build().state_dict().items()}


@every_backbone
def test_initial_weights_are_a_function_of_the_seed(row: Row) -> None:
    states = []
    for _ in range(2):
        model = row.build()
        torch.manual_seed(3)
        model.init_weights()
        states.append(model.state_dict())
    assert all(
        torch.equal(a, b) and a.isfinite().all() for a, b in zip(states[0].values(), states[1].values(), strict=True)
    )
