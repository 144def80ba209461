"""Describes which elements of each parameter a rank holds, for checkpoints, EMA and export.

Under every strategy a rank's part of a parameter is one run of its elements in row-major order: all of it (DDP), some
rows (FSDP2), or a section of a flat partition (ZeRO). So one checkpoint format serves all strategies and any number of
ranks.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Run:
    """`length` elements from `start` on of the parameter `name`, whose full shape is `shape`.

    On this rank they are at `offset` in the tensor that holds them. `length` is 0 if this rank has none of them.
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
        """The elements, not copied, in `holder`: the tensor that holds them, or one laid out alike (Adam's moments)."""
        # a DTensor, recognised without importing its class, which takes half a second
        local = holder.to_local() if hasattr(holder, "to_local") else holder
        if self.length == local.numel():
            return local  # in its own shape, and in its own memory format
        return local.view(-1).narrow(0, self.offset, self.length)


@dataclass(frozen=True)
class Held:
    """A tensor that the optimizer updates on this rank, and the runs of parameters that it holds.

    `names`: the parameters that it holds on any rank; they share a number such as Adam's step.
    """

    tensor: Tensor
    runs: list[Run]
    names: list[str]


def other_names(model: nn.Module) -> dict[str, str]:
    """For weights and buffers shared by several modules: each further name -> the first one, which is saved."""
    first: dict[int, str] = {}
    everything = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = {name: first.setdefault(id(tensor), name) for name, tensor in everything}
    return {name: kept for name, kept in names.items() if name != kept}


def whole_run(name: str, parameter: Tensor) -> Run:
    """The run that covers all of a parameter."""
    return Run(name, tuple(parameter.shape), 0, parameter.numel())
