"""ResNet_CIFAR: ResNet for images of 32 x 32 pixels."""

from typing import Any

from distcls.errors import ArgumentError
from distcls.models.backbones.resnet import ResNet
from distcls.registry import BACKBONES


@BACKBONES.register
class ResNet_CIFAR(ResNet):
    """ResNet whose stem is one 3x3 convolution of stride 1, without pooling, so that small images keep their size.

    Images (N, 3, H, W) -> a tuple with the map (N, C_i, H / 2^i, W / 2^i) of every stage i in out_indices. Follows
    MMPretrain 1.2; https://github.com/kuangliu/pytorch-cifar has the same network.

    Args:
        kwargs: as ResNet's; deep_stem is refused.
    """

    def __init__(self, deep_stem: bool = False, **kwargs: Any) -> None:
        if deep_stem:
            raise ArgumentError("ResNet_CIFAR.deep_stem", "got True, but its stem is a single 3x3 convolution")
        super().__init__(deep_stem=False, **kwargs)

    def _make_stem_layer(self, in_channels: int, base_channels: int) -> None:
        self._add_stem_conv(in_channels, base_channels, kernel_size=3, stride=1)
