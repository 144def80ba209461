"""ResidualBackbone: the common base of the ResNet family and RegNet."""

from typing import Any

from torch import nn

from distcls.models.backbones.res_layer import ResidualBlock
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    CONVOLUTIONAL,
    build_conv_layer,
    build_norm_layer,
    constant_init,
    init_layers,
)


class ResidualBackbone(StagedBackbone):
    """A stem of one convolution, then stages of residual blocks named layer1, layer2, ...

    A subclass's constructor sets the attributes below, registers the stem, in the order in which its layers run, and
    then the stages.
    """

    conv_cfg: dict[str, Any] | None
    norm_cfg: dict[str, Any]
    zero_init_residual: bool
    #: blocks of each stage
    stage_blocks: tuple[int, ...]

    def _add_stem_conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        """Register conv1, its norm and relu."""
        self.conv1 = build_conv_layer(
            self.conv_cfg, in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.norm1_name, norm1 = build_norm_layer(self.norm_cfg, out_channels, postfix=1)
        self.add_module(self.norm1_name, norm1)
        self.relu = nn.ReLU(inplace=True)

    @property
    def norm1(self) -> nn.Module:
        return getattr(self, self.norm1_name)

    @property
    def stages(self) -> list[nn.Module]:
        return [getattr(self, f"layer{i + 1}") for i in range(len(self.stage_blocks))]

    def stem_layers(self) -> list[nn.Module]:
        """All layers registered before layer1, so that a subclass with another stem only has to register it."""
        names = list(self._modules)
        return [getattr(self, name) for name in names[: names.index("layer1")]]

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[stage] for stage in self.stages]

    def init_weights(self) -> None:
        init_layers(self, CONVOLUTIONAL)
        if self.zero_init_residual:
            for block in self.modules():
                if isinstance(block, ResidualBlock):
                    constant_init(block.norm(block.last_norm), 0.0)
