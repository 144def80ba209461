"""SEResNet: ResNet with squeeze and excitation in its blocks."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from distcls.models.backbones.res_layer import Bottleneck, ResidualBlock, ResLayer
from distcls.models.backbones.resnet import ResNet
from distcls.models.common import SELayer
from distcls.registry import BACKBONES


class SEBottleneck(Bottleneck):
    """Bottleneck with an SELayer at the end of its branch."""

    def __init__(self, in_channels: int, out_channels: int, se_ratio: int = 16, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, **kwargs)
        self.se_layer = SELayer(out_channels, ratio=se_ratio)

    def after_norm(self, x: Tensor) -> Tensor:
        return self.se_layer(x)


@BACKBONES.register
class SEResNet(ResNet):
    """ResNet with squeeze-and-excitation. Hu et al., "Squeeze-and-Excitation Networks", 2017.

    https://arxiv.org/abs/1709.01507. Arguments and state_dict names are MMPretrain 1.2's.

    Args:
        depth: layers, which fixes how many blocks each stage has.
        se_ratio: channels / squeezed channels.
        kwargs: as ResNet's.
    """

    arch_settings: ClassVar[dict[int, tuple[type[ResidualBlock], tuple[int, ...]]]] = {
        50: (SEBottleneck, (3, 4, 6, 3)),
        101: (SEBottleneck, (3, 4, 23, 3)),
        152: (SEBottleneck, (3, 8, 36, 3)),
    }

    def __init__(self, depth: Literal[50, 101, 152], se_ratio: int = 16, **kwargs: Any) -> None:
        self.se_ratio = se_ratio  # make_res_layer, which ResNet's constructor calls, reads it
        super().__init__(depth, **kwargs)

    def make_res_layer(self, **kwargs: Any) -> ResLayer:
        return super().make_res_layer(se_ratio=self.se_ratio, **kwargs)
