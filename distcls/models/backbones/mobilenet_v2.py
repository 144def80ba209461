"""MobileNetV2: inverted residuals with linear bottlenecks."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    CONVOLUTIONAL,
    ConvModule,
    LinearResidual,
    init_layers,
    inverted_layers,
    make_divisible,
)
from distcls.registry import BACKBONES


class IndexedInvertedResidual(LinearResidual):
    """InvertedResidual without SE, its convolutions named conv.0, conv.1, conv.2 in the state_dict."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expand_ratio: int,
        act_cfg: Mapping[str, Any],
        with_cp: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(stride == 1 and in_channels == out_channels, with_cp=with_cp)
        layers = inverted_layers(
            in_channels,
            out_channels,
            in_channels * expand_ratio,
            kernel_size=3,
            stride=stride,
            act_cfg=act_cfg,
            **kwargs,
        )
        self.conv = nn.Sequential(*layers.values())

    def branch(self, x: Tensor) -> Tensor:
        return self.conv(x)


@BACKBONES.register
class MobileNetV2(StagedBackbone):
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, https://arxiv.org/abs/1801.04381.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map of every stage in out_indices: stages 0 to 6 are layer1 to layer7, stage
    7 is conv2, (N, 1280 * max(1, widen_factor), H / 32, W / 32).

    Args:
        widen_factor: of all widths, which are then rounded to multiples of 8.
        out_indices: stages whose maps are returned.
        frozen_stages: conv1 and this many stages, counted from the first, are not trained; 0 freezes conv1 only, -1
            nothing.
        conv_cfg, norm_cfg, act_cfg: blocks for every ConvModule.
        norm_eval: BatchNorm keeps its running averages in training too.
        with_cp: compute the blocks' activations again in backward instead of keeping them.

    Raises:
        UserError: out_indices or frozen_stages name stages that do not exist.
    """

    #: (expand_ratio, channels, blocks, stride) of each layer; table 2 of the paper
    arch_settings: ClassVar[tuple[tuple[int, int, int, int], ...]] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(
        self,
        widen_factor: Annotated[float, Field(gt=0)] = 1.0,
        out_indices: tuple[int, ...] = (7,),
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006
        act_cfg: dict = {"type": "ReLU6"},  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__(
            num_stages=len(self.arch_settings) + 1,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
        )
        kwargs: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        width = make_divisible(32 * widen_factor, 8)
        self.conv1 = ConvModule(3, width, 3, stride=2, padding=1, **kwargs)
        for i, (expand_ratio, channels, num_blocks, stride) in enumerate(self.arch_settings):
            out_channels = make_divisible(channels * widen_factor, 8)
            blocks = []
            for j in range(num_blocks):
                block = IndexedInvertedResidual(
                    width, out_channels, stride if j == 0 else 1, expand_ratio, with_cp=with_cp, **kwargs
                )
                blocks.append(block)
                width = out_channels
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.conv2 = ConvModule(width, int(1280 * max(1.0, widen_factor)), 1, **kwargs)
        self.freeze_stages()

    def stem_layers(self) -> list[nn.Module]:
        return [self.conv1]

    def stage_layers(self) -> list[list[nn.Module]]:
        return [*([getattr(self, f"layer{i + 1}")] for i in range(len(self.arch_settings))), [self.conv2]]

    def init_weights(self) -> None:
        init_layers(self, CONVOLUTIONAL)
