"""Which samples make which batch: a function of seed and step alone, whatever the ranks, workers or interruptions."""

from dataclasses import dataclass

import numpy as np

from distcls.data.errors import DataError

# Recorded with a run: a change of the functions below changes what a resumed run would see.
ORDER_VERSION = 1


def permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The epoch's order of all samples, (samples,) uint32, or uint64 where that is too small."""
    kind = np.uint32 if samples < 2**32 else np.uint64
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(np.arange(samples, dtype=kind))


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
        repeats: repeated augmentation (Hoffer et al. 2019; Fort et al. 2021): of S samples the first S / repeats of an
            epoch's order come `repeats` times each, at positions, so with augmentations, of their own. An epoch stays S
            positions long. The copies of an image share a global batch, where they are as far apart as can be: mixing
            pairs neighbours.

    Raises:
        DataError: the data set is smaller than one global batch.
    """

    def __init__(self, samples: int, global_batch_size: int, seed: int, *, repeats: int = 1) -> None:
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
        self._epoch = -1
        self._order = np.empty(0, np.uint32)

    def part(self, step: int, part: int, parts: int) -> Slice:
        """Part `part` of the `parts` equal, contiguous parts of global step `step`'s batch."""
        assert self.global_batch_size % parts == 0
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.samples, self.seed, epoch)
        size = self.global_batch_size // parts
        start = step_in_epoch * self.global_batch_size + part * size
        positions = np.arange(start, start + size)
        places = positions
        if self.repeats > 1:
            batch = step_in_epoch * self.global_batch_size + np.arange(self.global_batch_size)
            # All first copies, then all second ones.
            batch = batch[np.argsort(batch % self.repeats, kind="stable")]
            places = batch[part * size : (part + 1) * size] // self.repeats
        return Slice(epoch, positions, self._order[places].astype(np.int64))
