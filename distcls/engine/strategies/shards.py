"""Which elements of which parameter a rank holds: the one description that checkpoints, EMA and export need.

However a strategy spreads a model, what a rank has of a parameter is one run of its elements in row-major order: all of
it (DDP), some rows (FSDP2), or a stretch of a flat partition (ZeRO). So one format holds all strategies' checkpoints,
and any number of ranks reads them.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Run:
    """The elements from `start` on, `length` of them, of the parameter `name`, whose whole shape is `shape`.

    They lie at `offset` of the tensor that holds them on this rank. `length` may be 0: this rank has none.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    length: int
    offset: int = 0

    @property
    def whole(self) -> bool:
        return self.length == math.prod(self.shape)

    def within(self, holder: Tensor) -> Tensor:
        """The elements, in place. `holder`: the tensor that holds them, or one laid out like it (a moment of Adam)."""
        # a DTensor, known by what it can do: its class takes half a second to import
        local = holder.to_local() if hasattr(holder, "to_local") else holder
        if self.length == local.numel():
            return local  # in its own shape, and in its own memory format
        return local.view(-1).narrow(0, self.offset, self.length)


@dataclass(frozen=True)
class Held:
    """A tensor that the optimizer updates on this rank, and what of which parameter it holds here.

    `names`: the parameters that it holds on any rank; a number such as Adam's step is one for all of them.
    """

    tensor: Tensor
    runs: list[Run]
    names: list[str]


def other_names(model: nn.Module) -> dict[str, str]:
    """Of weights and buffers that several modules share: every further name -> the first, under which it is kept."""
    first: dict[int, str] = {}
    everything = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = {name: first.setdefault(id(tensor), name) for name, tensor in everything}
    return {name: kept for name, kept in names.items() if name != kept}


def whole_run(name: str, parameter: Tensor) -> Run:
    """All of a parameter."""
    return Run(name, tuple(parameter.shape), 0, parameter.numel())
