"""ResNeXt: ResNet with grouped convolutions."""

from typing import Any, ClassVar, Literal

from distcls.models.backbones.res_layer import Bottleneck, ResidualBlock, ResLayer
from distcls.models.backbones.resnet import ResNet
from distcls.registry import BACKBONES


@BACKBONES.register
class ResNeXt(ResNet):
    """ResNet whose 3x3 convolutions work in groups and are wider for it.

    Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2017,
    https://arxiv.org/abs/1611.05431. Arguments and state_dict names are MMPretrain 1.2's; the names are also
    torchvision's.

    Args:
        depth: layers, which fixes how many blocks each stage has.
        groups: of the 3x3 convolutions.
        width_per_group: their channels per group in stage 0; 32x4d is ``groups=32, width_per_group=4``.
        kwargs: as ResNet's.
    """

    arch_settings: ClassVar[dict[int, tuple[type[ResidualBlock], tuple[int, ...]]]] = {
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(self, depth: Literal[50, 101, 152], groups: int = 32, width_per_group: int = 4, **kwargs: Any) -> None:
        # make_res_layer, which ResNet's constructor calls, reads them
        self.groups = groups
        self.width_per_group = width_per_group
        super().__init__(depth, **kwargs)

    def make_res_layer(self, **kwargs: Any) -> ResLayer:
        mid_channels = kwargs["out_channels"] // kwargs["expansion"]
        if self.groups != 1:
            mid_channels = self.groups * self.width_per_group * mid_channels // self.base_channels
        return super().make_res_layer(groups=self.groups, mid_channels=mid_channels, **kwargs)
