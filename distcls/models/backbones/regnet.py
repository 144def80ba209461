"""RegNet: ResNeXt's blocks with widths from a quantised linear function."""

import math
from typing import Any, ClassVar, Literal

from distcls.models.backbones.arguments import check_per_stage, find_arch
from distcls.models.backbones.res_layer import Bottleneck, ResLayer
from distcls.models.backbones.residual_backbone import ResidualBackbone
from distcls.registry import BACKBONES

Arch = Literal[
    "regnetx_400mf",
    "regnetx_800mf",
    "regnetx_1.6gf",
    "regnetx_3.2gf",
    "regnetx_4.0gf",
    "regnetx_6.4gf",
    "regnetx_8.0gf",
    "regnetx_12gf",
]


@BACKBONES.register
class RegNet(ResidualBackbone):
    """RegNetX. Radosavovic et al., "Designing Network Design Spaces", 2020, https://arxiv.org/abs/2003.13678.

    Arguments and state_dict names are MMPretrain 1.2's, whose last stages are a little narrower than torchvision's.

    Images (N, 3, H, W) -> a tuple with the map (N, C_i, H / 2^(i+2), W / 2^(i+2)) of every stage i in out_indices.

    Args:
        arch: a published network, or a mapping: w0 (first width, a multiple of 8), wa (slope of the widths over the
            blocks), wm (factor from one stage's width to the next), group_w (channels per group), depth (blocks),
            bot_mul (inner width / width).
        in_channels: of the images.
        stem_channels: width of the stem.
        strides, dilations: of each stage.
        out_indices: stages whose maps are returned.
        style: where a block strides: "pytorch" in its 3x3 convolution, "caffe" in its first 1x1.
        avg_down: shortcuts average before their convolution instead of striding in it.
        frozen_stages, norm_eval, conv_cfg, norm_cfg, with_cp, zero_init_residual: as ResNet's.

    Raises:
        UserError: an unknown arch, or strides, dilations, out_indices or frozen_stages that do not fit its stages.
    """

    arch_settings: ClassVar[dict[str, dict[str, Any]]] = {
        "regnetx_400mf": {"w0": 24, "wa": 24.48, "wm": 2.54, "group_w": 16, "depth": 22, "bot_mul": 1.0},
        "regnetx_800mf": {"w0": 56, "wa": 35.73, "wm": 2.28, "group_w": 16, "depth": 16, "bot_mul": 1.0},
        "regnetx_1.6gf": {"w0": 80, "wa": 34.01, "wm": 2.25, "group_w": 24, "depth": 18, "bot_mul": 1.0},
        "regnetx_3.2gf": {"w0": 88, "wa": 26.31, "wm": 2.25, "group_w": 48, "depth": 25, "bot_mul": 1.0},
        "regnetx_4.0gf": {"w0": 96, "wa": 38.65, "wm": 2.43, "group_w": 40, "depth": 23, "bot_mul": 1.0},
        "regnetx_6.4gf": {"w0": 184, "wa": 60.83, "wm": 2.07, "group_w": 56, "depth": 17, "bot_mul": 1.0},
        "regnetx_8.0gf": {"w0": 80, "wa": 49.56, "wm": 2.88, "group_w": 120, "depth": 23, "bot_mul": 1.0},
        "regnetx_12gf": {"w0": 168, "wa": 73.36, "wm": 2.37, "group_w": 112, "depth": 19, "bot_mul": 1.0},
    }

    def __init__(
        self,
        arch: Arch | dict,
        in_channels: int = 3,
        stem_channels: int = 32,
        strides: tuple[int, ...] = (2, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        out_indices: tuple[int, ...] = (3,),
        style: Literal["pytorch", "caffe"] = "pytorch",
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN", "requires_grad": True},  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
    ) -> None:
        settings = find_arch(type(self), arch, self.arch_settings)
        stages = stage_widths(settings["w0"], settings["wa"], settings["wm"], settings["depth"])
        super().__init__(
            num_stages=len(stages), out_indices=out_indices, frozen_stages=frozen_stages, norm_eval=norm_eval
        )
        check_per_stage(type(self), len(stages), {"strides": strides, "dilations": dilations})
        self.in_channels = in_channels
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.zero_init_residual = zero_init_residual
        self.stage_blocks = tuple(num_blocks for _, num_blocks in stages)
        self._add_stem_conv(in_channels, stem_channels, kernel_size=3, stride=2)
        width = stem_channels
        for i, (stage_width, num_blocks) in enumerate(stages):
            out_channels, mid_channels, groups = grouped(stage_width, settings["bot_mul"], settings["group_w"])
            stage = ResLayer(
                Bottleneck,
                num_blocks,
                width,
                out_channels,
                stride=strides[i],
                avg_down=avg_down,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                drop_path_rate=[0.0] * num_blocks,
                expansion=1,
                mid_channels=mid_channels,
                groups=groups,
                dilation=dilations[i],
                style=style,
                with_cp=with_cp,
            )
            self.add_module(f"layer{i + 1}", stage)
            width = out_channels
        self.freeze_stages()


def stage_widths(w0: int, wa: float, wm: float, depth: int) -> list[tuple[int, int]]:
    """(width, blocks) of each stage: w0 + wa * block, rounded to w0 times a power of wm, then to a multiple of 8.

    Equations 2 to 4 of the paper.
    """
    stages: dict[int, int] = {}
    for block in range(depth):
        steps = round(math.log((w0 + wa * block) / w0) / math.log(wm))
        width = round(w0 * wm**steps / 8) * 8
        stages[width] = stages.get(width, 0) + 1
    return list(stages.items())


def grouped(width: int, bot_mul: float, group_width: int) -> tuple[int, int, int]:
    """(width, inner width, groups) of a stage; widths are adjusted so that the groups divide the inner width."""
    inner = int(width * bot_mul)
    group_width = min(group_width, inner)
    inner = round(inner / group_width) * group_width
    return int(inner / bot_mul), inner, inner // group_width
