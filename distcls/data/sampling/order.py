"""Which samples form which batch: a function of seed and step only, independent of ranks, workers or interruptions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distcls.data.errors import DataError
from distcls.data.sampling.block_order import BlockOrder

# Recorded with a run: increase it when the functions below change, since a resumed run would see other batches.
ORDER_VERSION = 1

_LOOKS = 32  # passes over all labels to balance an epoch
_PART = 1 << 16  # labels processed at a time


def permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The epoch's order of all samples, (samples,) uint32, or uint64 from 2**32 samples on."""
    return _shuffled(np.arange(samples, dtype=_kind(samples)), seed, epoch)


def _kind(samples: int) -> type[np.unsignedinteger]:
    return np.uint32 if samples < 2**32 else np.uint64


def _shuffled(order: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Shuffle `order` in place and return it: order[permutation] without a copy."""
    np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(order)
    return order


class BalancedOrder:
    """Class-balanced epochs: as many positions as there are samples, an equal share of them for each class.

    Each class has its own endless sequence: successive permutations of its n samples, the k-th drawn from
    Philox(key=[seed, k], counter=[0, 0, 0, class + 1]). With S samples in total and C classes that have any, the c-th
    of these (from 0) has used floor((e S + c) / C) entries of its sequence before epoch e. These numbers add up to e S
    exactly, so an epoch has S positions, the classes' shares differ by at most one, and over a run the samples of a
    class are seen equally often, within one. The positions are then shuffled as in `permutation`, by (seed, epoch).

    No array of the data set's size is kept between epochs: the samples of each class are looked up again every epoch,
    a group of classes at a time.

    Args:
        labels: (S,) class numbers; not copied.
        seed: of the run.
    """

    def __init__(self, labels: np.ndarray, seed: int) -> None:
        self.seed = seed
        self.samples = len(labels)
        self._labels = labels
        self._counts = np.zeros(int(labels.max()) + 1, np.int64)
        for _, part in self._parts():
            self._counts += np.bincount(part, minlength=len(self._counts))

    def __call__(self, epoch: int) -> np.ndarray:
        """The order of `epoch`: (S,) indices."""
        classes = int((self._counts > 0).sum())
        order = np.empty(self.samples, _kind(self.samples))
        filled = 0
        for number, (label, members) in enumerate(self._classes()):
            first, last = ((e * self.samples + number) // classes for e in (epoch, epoch + 1))
            for cycle in range(first // len(members), -(-last // len(members))):
                bits = np.random.Philox(key=[self.seed, cycle], counter=[0, 0, 0, label + 1])
                start = cycle * len(members)
                part = np.random.Generator(bits).permutation(members)[max(first - start, 0) : last - start]
                order[filled : filled + len(part)] = part
                filled += len(part)
        assert filled == self.samples
        return _shuffled(order, self.seed, epoch)

    def _classes(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each class that has samples, with its samples in the data set's order."""
        # Each pass over all labels collects about 1 / _LOOKS of the samples: little memory and few passes.
        ends = np.cumsum(self._counts)
        of_group = (ends - self._counts) * _LOOKS // self.samples
        for group in np.unique(of_group):
            (labels,) = np.nonzero(of_group == group)
            found = self._members(labels[0], labels[-1])
            cuts = np.cumsum(self._counts[labels])
            for label, members in zip(labels, np.split(found, cuts[:-1]), strict=True):
                if len(members):
                    yield int(label), members

    def _members(self, first: int, last: int) -> np.ndarray:
        """The samples of classes first..last (inclusive), grouped by class."""
        found = np.empty(self._counts[first : last + 1].sum(), _kind(self.samples))
        filled = 0
        for start, part in self._parts():
            here = np.flatnonzero((part >= first) & (part <= last))
            found[filled : filled + len(here)] = here + start
            filled += len(here)
        return found if first == last else found[np.argsort(self._labels[found], kind="stable")]

    def _parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """The labels in parts, each with its start: temporaries over all labels would be as large as the index."""
        for start in range(0, self.samples, _PART):
            yield start, self._labels[start : start + _PART]


@dataclass(frozen=True)
class Slice:
    """Part of an epoch's order: `indices` into the data set and their `positions` in that order, both (n,) int64."""

    epoch: int
    positions: np.ndarray
    indices: np.ndarray


class GlobalOrder:
    """The endless sequence of global batches, cut into equal parts for ranks and gradient accumulation.

    Global step g takes positions [s * B, (s + 1) * B) of epoch e's order, with e, s = divmod(g, steps_per_epoch). The
    incomplete last batch of an epoch is dropped.

    Args:
        samples: in the data set.
        global_batch_size: B.
        seed: of the run.
        balance: labels (samples,) to draw classes equally often, see BalancedOrder; None: each sample once.
        repeats: repeated augmentation (Hoffer et al. 2019; Fort et al. 2021): the first S / repeats of the S samples in
            an epoch's order occur `repeats` times each, at different positions and so with different augmentations. An
            epoch remains S positions long. The copies of an image share a global batch but lie as far apart in it as
            possible, because mixing pairs neighbours.
        blocks: replaces the order above for data larger than memory, see BlockOrder.

    Raises:
        DataError: the data set is smaller than one global batch.
    """

    def __init__(
        self,
        samples: int,
        global_batch_size: int,
        seed: int,
        balance: np.ndarray | None = None,
        *,
        repeats: int = 1,
        blocks: BlockOrder | None = None,
    ) -> None:
        if samples < global_batch_size:
            raise DataError(
                f"the training set holds {samples} images, fewer than one global batch of {global_batch_size}: "
                f"set train.global_batch_size to {samples} or less"
            )
        self.samples = samples
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.repeats = repeats
        self.steps_per_epoch = samples // global_batch_size
        self.blocks = blocks
        self._balanced = None if balance is None else BalancedOrder(balance, seed)
        self._epoch = -1
        self._order = np.empty(0, np.uint32)

    def part(self, step: int, part: int, parts: int) -> Slice:
        """Part number `part` of the batch of global step `step`, cut into `parts` equal, contiguous parts."""
        assert self.global_batch_size % parts == 0
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        size = self.global_batch_size // parts
        start = step_in_epoch * self.global_batch_size + part * size
        positions = np.arange(start, start + size)
        if self.blocks is not None:
            return Slice(epoch, positions, self.blocks.at(step, np.arange(part * size, (part + 1) * size)))
        if epoch != self._epoch:
            self._order = np.empty(0, np.uint32)  # free the old order before building the new one
            self._epoch, self._order = epoch, self._order_of(epoch)
        places = positions
        if self.repeats > 1:
            batch = step_in_epoch * self.global_batch_size + np.arange(self.global_batch_size)
            # All first copies, then all second copies, and so on.
            batch = batch[np.argsort(batch % self.repeats, kind="stable")]
            places = batch[part * size : (part + 1) * size] // self.repeats
        return Slice(epoch, positions, self._order[places].astype(np.int64))

    def _order_of(self, epoch: int) -> np.ndarray:
        return permutation(self.samples, self.seed, epoch) if self._balanced is None else self._balanced(epoch)
