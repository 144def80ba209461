"""MobileNetV3: inverted residuals found by search, with SE and hard activations."""

from functools import partial
from typing import ClassVar, Literal, NamedTuple

from torch import nn

from distcls.models.backbones.arguments import check_choice, check_frozen_stages
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    CONVOLUTIONAL,
    ConvModule,
    InvertedResidual,
    init_layers,
)
from distcls.registry import BACKBONES

HSWISH = {"type": "HSwish"}


class Block(NamedTuple):
    """One row of the paper's tables 1 and 2."""

    kernel_size: int
    mid_channels: int
    out_channels: int
    with_se: bool
    act: Literal["ReLU", "HSwish"]
    stride: int


def small(widths: tuple[int, ...], mid_channels: tuple[int, ...]) -> tuple[Block, ...]:
    """The small network: `widths` of its five groups of equally wide blocks, `mid_channels` of its eleven blocks."""
    c1, c2, c3, c4, c5 = widths
    m = mid_channels
    return (
        Block(3, m[0], c1, True, "ReLU", 2),
        Block(3, m[1], c2, False, "ReLU", 2),
        Block(3, m[2], c2, False, "ReLU", 1),
        Block(5, m[3], c3, True, "HSwish", 2),
        Block(5, m[4], c3, True, "HSwish", 1),
        Block(5, m[5], c3, True, "HSwish", 1),
        Block(5, m[6], c4, True, "HSwish", 1),
        Block(5, m[7], c4, True, "HSwish", 1),
        Block(5, m[8], c5, True, "HSwish", 2),
        Block(5, m[9], c5, True, "HSwish", 1),
        Block(5, m[10], c5, True, "HSwish", 1),
    )


@BACKBONES.register
class MobileNetV3(StagedBackbone):
    """Howard et al., "Searching for MobileNetV3", 2019, https://arxiv.org/abs/1905.02244.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map of every layer in out_indices: layer 0 is the stem, the last one a 1x1
    convolution, (N, 576, H / 32, W / 32) for small and (N, 960, H / 32, W / 32) for large.

    Args:
        arch: which network.
        conv_cfg, norm_cfg: blocks for every ConvModule.
        out_indices: layers whose maps are returned; None takes the last.
        frozen_stages: layers 0 to this one are not trained; -1 freezes nothing.
        norm_eval: BatchNorm keeps its running averages in training too.
        with_cp: compute the blocks' activations again in backward instead of keeping them.

    Raises:
        UserError: an unknown arch, or out_indices or frozen_stages name layers that do not exist.
    """

    arch_settings: ClassVar[dict[str, tuple[Block, ...]]] = {
        "small": small((16, 24, 40, 48, 96), (16, 72, 88, 96, 240, 240, 120, 144, 288, 576, 576)),
        "small_075": small((16, 24, 32, 40, 72), (16, 72, 88, 96, 192, 192, 96, 120, 240, 432, 432)),
        "small_050": small((8, 16, 24, 24, 48), (16, 40, 56, 64, 144, 144, 72, 72, 144, 288, 288)),
        "large": (
            Block(3, 16, 16, False, "ReLU", 1),
            Block(3, 64, 24, False, "ReLU", 2),
            Block(3, 72, 24, False, "ReLU", 1),
            Block(5, 72, 40, True, "ReLU", 2),
            Block(5, 120, 40, True, "ReLU", 1),
            Block(5, 120, 40, True, "ReLU", 1),
            Block(3, 240, 80, False, "HSwish", 2),
            Block(3, 200, 80, False, "HSwish", 1),
            Block(3, 184, 80, False, "HSwish", 1),
            Block(3, 184, 80, False, "HSwish", 1),
            Block(3, 480, 112, True, "HSwish", 1),
            Block(3, 672, 112, True, "HSwish", 1),
            Block(5, 672, 160, True, "HSwish", 2),
            Block(5, 960, 160, True, "HSwish", 1),
            Block(5, 960, 160, True, "HSwish", 1),
        ),
    }

    def __init__(
        self,
        arch: Literal["small", "small_075", "small_050", "large"] = "small",
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN", "eps": 0.001, "momentum": 0.01},  # noqa: B006
        out_indices: tuple[int, ...] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
    ) -> None:
        check_choice(type(self), "arch", arch, self.arch_settings)
        blocks = self.arch_settings[arch]
        last = len(blocks) + 1
        super().__init__(
            num_stages=last + 1,
            out_indices=(last,) if out_indices is None else out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
        )
        check_frozen_stages(type(self), frozen_stages, -1, last)
        self.num_layers = last + 1
        conv = partial(ConvModule, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=HSWISH)
        width = 16
        self.layer0 = conv(3, width, 3, stride=2, padding=1)
        for i, block in enumerate(blocks):
            se_cfg = {"channels": block.mid_channels, "ratio": 4, "act_cfg": ({"type": "ReLU"}, {"type": "HSigmoid"})}
            layer = InvertedResidual(
                width,
                block.out_channels,
                block.mid_channels,
                kernel_size=block.kernel_size,
                stride=block.stride,
                se_cfg=se_cfg if block.with_se else None,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                act_cfg={"type": block.act},
                with_cp=with_cp,
            )
            self.add_module(f"layer{i + 1}", layer)
            width = block.out_channels
        self.add_module(f"layer{last}", conv(width, blocks[-1].mid_channels, 1))
        self.freeze_stages()

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[getattr(self, f"layer{i}")] for i in range(self.num_layers)]

    def frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        return [layer for (layer,) in self.stage_layers()[: self.frozen_stages + 1]]

    def init_weights(self) -> None:
        init_layers(self, CONVOLUTIONAL)
