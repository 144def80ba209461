"""StagedBackbone: a backbone that is a stem and a row of stages, of which some give their maps and some are frozen."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distcls.errors import UserError
from distcls.models.common.base_module import BaseModule


class StagedBackbone(BaseModule):
    """Images (N, 3, H, W) -> a tuple with the map of every stage in `out_indices`.

    A subclass names its layers in `stem_layers` and `stage_layers` and ends its constructor with `freeze_stages()`.

    Args:
        num_stages: how many there are.
        out_indices: stages whose maps are returned.
        frozen_stages: how many stages, counted from the first, are not trained, nor is the stem; 0 freezes the stem
            alone, -1 nothing.
        norm_eval: BatchNorm keeps its running averages in training too.

    Raises:
        UserError: out_indices or frozen_stages name stages that are not there.
    """

    def __init__(
        self, *, num_stages: int, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool = False
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not out_indices or not all(0 <= i < num_stages for i in out_indices):
            raise UserError(f"{name}.out_indices: got {tuple(out_indices)}, expected stages from 0 to {num_stages - 1}")
        if not -1 <= frozen_stages <= num_stages:
            raise UserError(f"{name}.frozen_stages: got {frozen_stages}, expected -1 to {num_stages}")
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def stem_layers(self) -> list[nn.Module]:
        """What comes before stage 0, in order."""
        return []

    def stage_layers(self) -> list[list[nn.Module]]:
        """The layers of each stage, in order."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for layer in self.stem_layers():
            x = layer(x)
        maps = []
        for i, stage in enumerate(self.stage_layers()):
            for layer in stage:
                x = layer(x)
            if i in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def frozen_layers(self) -> list[nn.Module]:
        """The layers that `frozen_stages` freezes."""
        if self.frozen_stages < 0:
            return []
        stages = self.stage_layers()[: self.frozen_stages]
        return [*self.stem_layers(), *(layer for stage in stages for layer in stage)]

    def freeze_stages(self) -> None:
        """Frozen layers take no gradient and their BatchNorm keeps its running averages."""
        for layer in self.frozen_layers():
            layer.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
