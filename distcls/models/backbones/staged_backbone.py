"""StagedBackbone: a stem and a sequence of stages, of which some are outputs and some may be frozen."""

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distcls.models.backbones.arguments import check_frozen_stages, stage_indices
from distcls.models.backbones.freezable_backbone import FreezableBackbone
from distcls.models.common.batch_norm.fused import run_layers


class StagedBackbone(FreezableBackbone):
    """Images (N, 3, H, W) -> a tuple with the `output` of every stage in `out_indices`.

    A subclass names its layers in `stem_layers` and `stage_layers` and ends its constructor with `freeze_stages()`.

    Args:
        num_stages: number of stages.
        out_indices: stages whose maps are returned; negative ones count from the last.
        frozen_stages: the stem and this many stages, counted from the first, are not trained; 0 freezes the stem only,
            -1 nothing.
        norm_eval: BatchNorm keeps its running averages in training too.

    Raises:
        UserError: out_indices or frozen_stages name stages that do not exist.
    """

    def __init__(
        self, *, num_stages: int, out_indices: int | tuple[int, ...], frozen_stages: int, norm_eval: bool = False
    ) -> None:
        super().__init__()
        self.out_indices = stage_indices(type(self), out_indices, num_stages)
        check_frozen_stages(type(self), frozen_stages, -1, num_stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def stem_layers(self) -> list[nn.Module]:
        """What comes before stage 0, in order."""
        return []

    def stage_layers(self) -> list[list[nn.Module]]:
        """The layers of each stage, in order."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = run_layers(self.stem_layers(), x)
        maps = []
        for i, stage in enumerate(self.stage_layers()):
            for layer in stage:
                x = layer(x)
            if i in self.out_indices:
                maps.append(self.output(x, i))
        return tuple(maps)

    def output(self, x: Tensor, stage: int) -> Tensor:
        """The last map of a stage -> the stage's output: here the map itself."""
        return x

    def frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages < 0:
            return []
        stages = self.stage_layers()[: self.frozen_stages]
        return [*self.stem_layers(), *(layer for stage in stages for layer in stage)]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
