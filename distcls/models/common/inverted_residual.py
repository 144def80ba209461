"""InvertedResidual, the block of MobileNetV3 and EfficientNet, and the parts that related blocks share with it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distcls.models.common.activation_checkpoint import run_checkpointed
from distcls.models.common.conv_module import ConvModule
from distcls.models.common.drop_path import DropPath
from distcls.models.common.se_layer import SELayer


class LinearResidual(nn.Module):
    """x + branch(x) where the shapes allow it, else branch(x); no activation follows. A subclass adds `branch`.

    Args:
        shortcut: whether to add x.
        drop_path_rate: probability to skip the branch of an image in training.
        with_cp: compute the activations again in backward instead of keeping them.
    """

    def __init__(self, shortcut: bool, drop_path_rate: float = 0.0, with_cp: bool = False) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.drop_path = DropPath(drop_path_rate)
        self.with_cp = with_cp

    def branch(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        raise NotImplementedError

    def _sum(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.branch(x)) if self.shortcut else self.branch(x)

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self, self._sum, x) if self.with_cp else self._sum(x)


def inverted_layers(
    in_channels: int,
    out_channels: int,
    mid_channels: int,
    kernel_size: int,
    stride: int,
    act_cfg: Mapping[str, Any],
    **kwargs: Any,
) -> dict[str, ConvModule]:
    """The convolutions of an inverted residual: 1x1 expansion (if it widens), depthwise, 1x1 projection.

    Args:
        kwargs: conv_cfg and norm_cfg of all of them.
    """
    layers = {}
    if mid_channels != in_channels:
        layers["expand_conv"] = ConvModule(in_channels, mid_channels, 1, act_cfg=act_cfg, **kwargs)
    layers["depthwise_conv"] = ConvModule(
        mid_channels,
        mid_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=mid_channels,
        act_cfg=act_cfg,
        **kwargs,
    )
    layers["linear_conv"] = ConvModule(mid_channels, out_channels, 1, act_cfg=None, **kwargs)
    return layers


class InvertedResidual(LinearResidual):
    """Narrow -> wide -> narrow. Sandler et al., "MobileNetV2", 2018; with SE as in "Searching for MobileNetV3", 2019.

    Images (N, in, H, W) -> (N, out, H / stride, W / stride). Names as mmpretrain.models.utils.InvertedResidual.

    Args:
        mid_channels: of the depthwise convolution; where they equal in_channels there is no expanding convolution.
        kernel_size, stride: of the depthwise convolution.
        se_cfg: arguments of the SELayer after the depthwise convolution; None leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        se_cfg: Mapping[str, Any] | None = None,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] = {"type": "BN"},
        act_cfg: Mapping[str, Any] = {"type": "ReLU"},
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__(stride == 1 and in_channels == out_channels, drop_path_rate, with_cp)
        layers = inverted_layers(
            in_channels, out_channels, mid_channels, kernel_size, stride, act_cfg, conv_cfg=conv_cfg, norm_cfg=norm_cfg
        )
        self.expand_conv = layers.get("expand_conv")
        self.depthwise_conv = layers["depthwise_conv"]
        self.se = SELayer(**se_cfg) if se_cfg is not None else None
        self.linear_conv = layers["linear_conv"]

    def branch(self, x: Tensor) -> Tensor:
        if self.expand_conv is not None:
            x = self.expand_conv(x)
        x = self.depthwise_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.linear_conv(x)
