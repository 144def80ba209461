"""SELayer: squeeze and excitation, channel weights computed from the channel means of a map."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distcls.models.common.conv_module import ConvModule
from distcls.models.common.make_divisible import make_divisible


class SELayer(nn.Module):
    """(N, C, H, W) -> the same shape, every channel times a weight in [0, 1].

    Hu et al., "Squeeze-and-Excitation Networks", 2017, https://arxiv.org/abs/1709.01507; names as MMPretrain's SELayer.

    Args:
        channels: C.
        squeeze_channels: width between the two layers; None: channels // ratio, rounded to a multiple of `divisor`.
        conv_cfg: block for build_conv_layer.
        act_cfg: activations after the first and after the second layer.
    """

    def __init__(
        self,
        channels: int,
        squeeze_channels: int | None = None,
        ratio: int = 16,
        divisor: int = 8,
        conv_cfg: Mapping[str, Any] | None = None,
        act_cfg: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"type": "ReLU"}, {"type": "Sigmoid"}),
    ) -> None:
        super().__init__()
        squeezed = squeeze_channels or make_divisible(channels // ratio, divisor)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvModule(channels, squeezed, 1, conv_cfg=conv_cfg, act_cfg=act_cfg[0])
        self.conv2 = ConvModule(squeezed, channels, 1, conv_cfg=conv_cfg, act_cfg=act_cfg[1])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))
