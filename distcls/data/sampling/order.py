"""Which samples make which batch: a function of seed and step alone, whatever the ranks, workers or interruptions."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distcls.data.errors import DataError
from distcls.data.sampling.block_order import BlockOrder

# Recorded with a run: a change of the functions below changes what a resumed run would see.
ORDER_VERSION = 1

_LOOKS = 32  # at all labels, to balance an epoch
_PART = 1 << 16  # labels at a time


def permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The epoch's order of all samples, (samples,) uint32, or uint64 where that is too small."""
    return _shuffled(np.arange(samples, dtype=_kind(samples)), seed, epoch)


def _kind(samples: int) -> type[np.unsignedinteger]:
    return np.uint32 if samples < 2**32 else np.uint64


def _shuffled(order: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """`order` itself, shuffled: order[permutation] without a copy."""
    np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(order)
    return order


class BalancedOrder:
    """Epochs of as many positions as there are samples, of which each class gets an equal share.

    A class has an endless sequence of its own: permutations of its n samples, one after the other, the k-th drawn from
    Philox(key=[seed, k], counter=[0, 0, 0, class + 1]). Of C classes that have samples, and S samples in all, the c-th
    (from 0) has used floor((e S + c) / C) of its sequence before epoch e. These add up to e S exactly: an epoch has S
    positions, its classes' shares differ by one at most, and over a run all samples of a class are seen equally often,
    give or take one. The epoch's positions are then shuffled as `permutation` does: a function of (seed, epoch).

    Nothing of the size of the data set is kept: which samples a class has is looked up again in each epoch, for some
    classes at a time.

    Args:
        labels: (S,) class numbers, which are not copied.
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
        """(S,) indices."""
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
        """Each class that has samples, and these, in the data set's order."""
        # Each look at all labels finds about a part in _LOOKS of the samples: little memory, and still few looks.
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
        """The samples of classes first..last, class after class."""
        found = np.empty(self._counts[first : last + 1].sum(), _kind(self.samples))
        filled = 0
        for start, part in self._parts():
            here = np.flatnonzero((part >= first) & (part <= last))
            found[filled : filled + len(here)] = here + start
            filled += len(here)
        return found if first == last else found[np.argsort(self._labels[found], kind="stable")]

    def _parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """The labels in parts, each with its beginning: what is computed of all would be as large as the index."""
        for start in range(0, self.samples, _PART):
            yield start, self._labels[start : start + _PART]


@dataclass(frozen=True)
class Slice:
    """A run of an epoch's order: `indices` into the data set and their `positions` in that order, both (n,) int64."""

    epoch: int
    positions: np.ndarray
    indices: np.ndarray


class GlobalOrder:
    """The endless sequence of global batches, cut into equal parts for ranks and accumulation.

    Global step g takes positions [s * B, (s + 1) * B) of epoch e's order, with e, s = divmod(g, steps_per_epoch). What
    is left of an epoch after its last whole batch is dropped.

    Args:
        samples: in the data set.
        global_batch_size: B.
        seed: of the run.
        balance: labels (samples,) whose classes are to come equally often, see BalancedOrder; None: each sample once.
        repeats: repeated augmentation (Hoffer et al. 2019; Fort et al. 2021): of S samples the first S / repeats of an
            epoch's order come `repeats` times each, at positions, so with augmentations, of their own. An epoch stays S
            positions long. The copies of an image share a global batch, where they are as far apart as can be: mixing
            pairs neighbours.
        blocks: takes the place of all this for data larger than memory, see BlockOrder.

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
        """Part `part` of the `parts` equal, contiguous parts of global step `step`'s batch."""
        assert self.global_batch_size % parts == 0
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        size = self.global_batch_size // parts
        start = step_in_epoch * self.global_batch_size + part * size
        positions = np.arange(start, start + size)
        if self.blocks is not None:
            return Slice(epoch, positions, self.blocks.at(step, np.arange(part * size, (part + 1) * size)))
        if epoch != self._epoch:
            self._order = np.empty(0, np.uint32)  # not two at a time
            self._epoch, self._order = epoch, self._order_of(epoch)
        places = positions
        if self.repeats > 1:
            batch = step_in_epoch * self.global_batch_size + np.arange(self.global_batch_size)
            # All first copies, then all second ones.
            batch = batch[np.argsort(batch % self.repeats, kind="stable")]
            places = batch[part * size : (part + 1) * size] // self.repeats
        return Slice(epoch, positions, self._order[places].astype(np.int64))

    def _order_of(self, epoch: int) -> np.ndarray:
        return permutation(self.samples, self.seed, epoch) if self._balanced is None else self._balanced(epoch)
