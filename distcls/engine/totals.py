"""Sums of losses and counts, kept on the device and read only now and then."""

from collections.abc import Mapping

import torch

from distcls.engine.ranks.reduction import SumOverRanks


class Totals:
    """Sums over samples of what a classifier returns: losses weighted by their batch's size, counts as they are.

    They are kept in one float64 tensor on the device: adding takes a few small operations and no synchronisation, and
    the order of additions, hence the last bit of a logged value, depends on the batches alone.

    Args:
        device: of the values to come.
        world_size: ranks over which `reduce` sums.
    """

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.device = device
        self.world_size = world_size
        self.names: list[str] = []
        self.sums = torch.zeros(1, dtype=torch.float64, device=device)

    def add(self, values: Mapping[str, torch.Tensor], count: int) -> None:
        """Add one batch of `count` samples: entries with "loss" in their name are means over it, the others counts."""
        if not self.names:
            self.names = list(values)
            self.sums = torch.zeros(len(values) + 1, dtype=torch.float64, device=self.device)
        assert list(values) == self.names, f"a batch returned {list(values)}, the ones before {self.names}"
        batch = [values[name].detach().double() * (count if "loss" in name else 1) for name in self.names]
        self.sums += torch.stack([*batch, torch.full((), count, dtype=torch.float64, device=self.device)])

    def reduce(self) -> "Means":
        """Start to sum over the ranks what was added since the last call, and reset the sums."""
        means = Means(list(self.names), SumOverRanks(self.sums.clone(), self.world_size))
        self.sums.zero_()
        return means

    def state(self) -> tuple[list[str], torch.Tensor]:
        """What a checkpoint keeps: the names, and this rank's sums."""
        return list(self.names), self.sums.clone()

    def load(self, names: list[str], sums: torch.Tensor) -> None:
        """Continue from what `state` returned."""
        self.names = list(names)
        self.sums = sums.to(self.device)


class Means:
    """A reduction in progress: each value's mean over the samples of all ranks, and their number ``n``."""

    def __init__(self, names: list[str], sums: SumOverRanks) -> None:
        self._names = names
        self._sums = sums

    def read(self) -> dict[str, float]:
        """The means and ``n``; waits until they have arrived."""
        *sums, count = self._sums.result().tolist()
        return {**{name: total / count for name, total in zip(self._names, sums, strict=True)}, "n": int(count)}
