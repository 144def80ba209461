"""build_conv_layer: a convolution by its name in `conv_cfg`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from distcls.errors import ArgumentError
from distcls.models.common.blur_pool import BlurPoolConv2d
from distcls.models.common.conv2d_adaptive_padding import Conv2dAdaptivePadding
from distcls.models.common.layer_type import build_layer, split_block

CONV_LAYERS: dict[str, type[nn.Module]] = {
    "Conv": nn.Conv2d,
    "Conv1d": nn.Conv1d,
    "Conv2d": nn.Conv2d,
    "Conv3d": nn.Conv3d,
    "Conv2dAdaptivePadding": Conv2dAdaptivePadding,
    "BlurPoolConv2d": BlurPoolConv2d,
}


def build_conv_layer(cfg: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A convolution, as mmcv's function of this name builds it.

    Args:
        cfg: ``{type: Conv2d, ...}`` with arguments for every convolution of the model; None means Conv2d.
        args, kwargs: this convolution's own arguments: in_channels, out_channels, kernel_size, stride=..., ...

    Raises:
        UserError: the type is not known, or does not take the arguments.
    """
    layer, common = split_block(cfg or {"type": "Conv2d"}, CONV_LAYERS, "conv_cfg")
    if twice := set(common) & set(kwargs):
        raise ArgumentError("conv_cfg", f"got {', '.join(sorted(twice))}, which each convolution has its own of")
    return build_layer(layer, "conv_cfg", *args, **kwargs, **common)
