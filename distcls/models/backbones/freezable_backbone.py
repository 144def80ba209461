"""FreezableBackbone: a backbone whose first parts can be kept out of training."""

from typing import Self

from torch import nn

from distcls.models.common import BaseModule


class FreezableBackbone(BaseModule):
    """A subclass names its frozen parts in `frozen_parts` and ends its constructor with `freeze_stages()`."""

    def frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        """The modules and parameters that `frozen_stages` freezes."""
        raise NotImplementedError

    def freeze_stages(self) -> None:
        """Freeze the parts: no gradients, BatchNorm keeps its running averages, dropout is off."""
        for part in self.frozen_parts():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.freeze_stages()
        return self
