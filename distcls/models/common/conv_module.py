"""ConvModule: convolution, normalisation and activation under mmcv's names."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from distcls.models.common.activation import build_activation_layer
from distcls.models.common.conv import build_conv_layer
from distcls.models.common.norm import build_norm_layer

Size = int | tuple[int, int]


class ConvModule(nn.Module):
    """Conv -> norm -> activation; in the state_dict "conv" and "bn" (or "gn", "ln"), the activation is `activate`.

    Args:
        bias: "auto" gives the convolution a bias where no norm follows.
        norm_cfg, act_cfg: None leaves the layer out.
        inplace: the activation overwrites its input.

    Follows mmcv.cnn.ConvModule; a plain module: the backbone that owns it initialises it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool | Literal["auto"] = "auto",
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = {"type": "ReLU"},
        inplace: bool = True,
    ) -> None:
        super().__init__()
        self.conv = build_conv_layer(
            conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=norm_cfg is None if bias == "auto" else bias,
        )
        self.norm_name: str | None = None
        if norm_cfg is not None:
            self.norm_name, norm = build_norm_layer(norm_cfg, out_channels)
            self.add_module(self.norm_name, norm)
        self.activate = build_activation_layer(act_cfg, inplace) if act_cfg is not None else None

    @property
    def norm(self) -> nn.Module | None:
        return None if self.norm_name is None else getattr(self, self.norm_name)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activate is not None:
            x = self.activate(x)
        return x
