"""EfficientNet: one searched network, scaled in width, depth and resolution together."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from distcls.models.backbones.arguments import check_choice
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    CONVOLUTIONAL,
    ConvModule,
    DropRate,
    InvertedResidual,
    LinearResidual,
    drop_path_rates,
    init_layers,
    make_divisible,
)
from distcls.registry import BACKBONES


class Run(NamedTuple):
    """A sequence of equal blocks, one row of table 1 of the paper; only the first block has the stride.

    edge: EdgeResiduals, else InvertedResiduals, which may have an SELayer.
    """

    kernel_size: int
    channels: int
    num_blocks: int
    stride: int
    expand_ratio: int
    with_se: bool = False
    edge: bool = False


MOBILE_RUNS = (
    Run(3, 16, 1, 1, 1, with_se=True),
    Run(3, 24, 2, 2, 6, with_se=True),
    Run(5, 40, 2, 2, 6, with_se=True),
    Run(3, 80, 3, 2, 6, with_se=True),
    Run(5, 112, 3, 1, 6, with_se=True),
    Run(5, 192, 4, 2, 6, with_se=True),
    Run(3, 320, 1, 1, 6, with_se=True),
)
#: EfficientNet-EdgeTPU
EDGE_RUNS = (
    Run(3, 24, 1, 1, 3, edge=True),
    Run(3, 32, 2, 2, 8, edge=True),
    Run(3, 48, 4, 2, 8, edge=True),
    Run(5, 96, 5, 2, 8),
    Run(5, 144, 4, 1, 8),
    Run(5, 192, 2, 2, 8),
)


class EdgeResidual(LinearResidual):
    """InvertedResidual with one plain convolution in place of the 1x1 and the depthwise.

    Gupta and Tan, "EfficientNet-EdgeTPU", 2019; names as MMPretrain's EdgeResidual.

    Args:
        with_residual: whether to add the input where the shapes allow it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        kernel_size: int,
        stride: int,
        act_cfg: Mapping[str, Any],
        with_residual: bool,
        drop_path_rate: float,
        with_cp: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(with_residual and stride == 1 and in_channels == out_channels, drop_path_rate, with_cp)
        self.conv1 = ConvModule(
            in_channels,
            mid_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            act_cfg=act_cfg,
            **kwargs,
        )
        self.conv2 = ConvModule(mid_channels, out_channels, 1, act_cfg=None, **kwargs)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


@BACKBONES.register
class EfficientNet(StagedBackbone):
    """Tan and Le, "EfficientNet: Rethinking Model Scaling", 2019, https://arxiv.org/abs/1905.11946.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map of every stage in out_indices: stage 0 is the stem, stages 1 to 5 the
    five resolutions of blocks, the last is a 1x1 convolution, (N, C, H / 32, W / 32).

    Args:
        arch: which network: b0 to b8 and l2, or es, em, el of EfficientNet-EdgeTPU.
        drop_path_rate: probability to skip the last block; the others' grows to it linearly from 0.
        out_indices: stages whose maps are returned.
        frozen_stages: how many stages, counted from the stem, are not trained; 0 freezes nothing.
        conv_cfg, norm_cfg, act_cfg: blocks for every ConvModule. The published weights need the defaults.
        norm_eval: BatchNorm keeps its running averages in training too.
        with_cp: compute the blocks' activations again in backward instead of keeping them.

    Raises:
        UserError: an unknown arch, or out_indices or frozen_stages name stages that do not exist.
    """

    #: arch -> factors for widths and depths; the resolutions that belong to them are b0 224, b1 240, b2 260, b3 300,
    #: b4 380, b5 456, b6 528, b7 600, b8 672, l2 800, es 224, em 240, el 300
    arch_settings: ClassVar[dict[str, tuple[float, float]]] = {
        "b0": (1.0, 1.0),
        "b1": (1.0, 1.1),
        "b2": (1.1, 1.2),
        "b3": (1.2, 1.4),
        "b4": (1.4, 1.8),
        "b5": (1.6, 2.2),
        "b6": (1.8, 2.6),
        "b7": (2.0, 3.1),
        "b8": (2.2, 3.6),
        "l2": (4.3, 5.3),
        "es": (1.0, 1.0),
        "em": (1.0, 1.1),
        "el": (1.2, 1.4),
    }

    def __init__(
        self,
        arch: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2", "es", "em", "el"] = "b0",
        drop_path_rate: DropRate = 0.0,
        out_indices: tuple[int, ...] = (6,),
        frozen_stages: int = 0,
        conv_cfg: dict | None = {"type": "Conv2dAdaptivePadding"},  # noqa: B006
        norm_cfg: dict = {"type": "BN", "eps": 1e-3},  # noqa: B006
        act_cfg: dict = {"type": "Swish"},  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
    ) -> None:
        check_choice(type(self), "arch", arch, self.arch_settings)
        width_factor, depth_factor = self.arch_settings[arch]
        stages = scaled_stages(EDGE_RUNS if arch.startswith("e") else MOBILE_RUNS, width_factor, depth_factor)
        super().__init__(
            num_stages=len(stages) + 2, out_indices=out_indices, frozen_stages=frozen_stages, norm_eval=norm_eval
        )
        conv = partial(ConvModule, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        width = make_divisible(32 * width_factor, 8)
        self.layers = nn.ModuleList([conv(3, width, 3, stride=2, padding=1)])
        num_blocks = sum(len(stage) for stage in stages)
        rates = iter(drop_path_rates(drop_path_rate, num_blocks))
        for stage in stages:
            blocks = []
            for i, block in enumerate(stage):
                layer = make_block(
                    block,
                    width,
                    first=i == 0,
                    drop_path_rate=next(rates),
                    with_cp=with_cp,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                )
                blocks.append(layer)
                width = block.channels
            self.layers.append(nn.Sequential(*blocks))
        self.layers.append(conv(width, make_divisible(1280 * width_factor, 8), 1))
        self.freeze_stages()

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[layer] for layer in self.layers]

    def init_weights(self) -> None:
        init_layers(self, CONVOLUTIONAL)


def scaled_stages(runs: tuple[Run, ...], width_factor: float, depth_factor: float) -> list[list[Run]]:
    """The blocks of each stage, as runs of one block; a run that does not stride belongs to the stage before it."""
    stages: list[list[Run]] = []
    for run in runs:
        channels = make_divisible(run.channels * width_factor, 8)
        first = run._replace(channels=channels, num_blocks=1)
        others = [first._replace(stride=1)] * (math.ceil(run.num_blocks * depth_factor) - 1)
        if run.stride == 1 and stages:
            stages[-1] += [first, *others]
        else:
            stages.append([first, *others])
    return stages


def make_block(run: Run, in_channels: int, first: bool, act_cfg: Mapping[str, Any], **kwargs: Any) -> nn.Module:
    """One block of a run; `first`: it is the first of its stage."""
    if run.edge:
        # with ratio 3, all blocks but the first expand by 4 and have no shortcut, as in the published em
        odd = run.expand_ratio == 3 and not first
        mid_channels = in_channels * (4 if odd else run.expand_ratio)
        return EdgeResidual(
            in_channels,
            run.channels,
            mid_channels,
            run.kernel_size,
            run.stride,
            act_cfg,
            with_residual=not odd,
            **kwargs,
        )
    mid_channels = in_channels * run.expand_ratio
    se_cfg = {
        "channels": mid_channels,
        "ratio": 4 * run.expand_ratio,  # squeezes to a quarter of the block's input channels
        "divisor": 1,
        "act_cfg": (act_cfg, {"type": "Sigmoid"}),
    }
    return InvertedResidual(
        in_channels,
        run.channels,
        mid_channels,
        kernel_size=run.kernel_size,
        stride=run.stride,
        se_cfg=se_cfg if run.with_se else None,
        act_cfg=act_cfg,
        **kwargs,
    )
