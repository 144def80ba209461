"""An order for data larger than memory: blocks of neighbouring samples, shuffled over the data set, mixed in windows.

Nothing is stored: each sample is computed from (seed, epoch, step, place in the batch). So a run can start at any step
as cheaply as at the first, and a billion samples take no memory.
"""

import numpy as np

from distcls.data.splitmix import INCREMENT, MIX1, MIX2, key_of, mix

_GOLDEN = 2654435769  # 2**32 over the golden ratio: multiples of it are spread evenly modulo 2**32
_ROUNDS = 24
_BLOCKS, _SHIFT, _WINDOWS = range(3)  # purposes that keys are derived for


def shuffled(positions: np.ndarray, sizes: np.ndarray | int, keys: np.ndarray) -> np.ndarray:
    """Where a keyed random permutation of range(size) takes a position: swap-or-not (Hoang, Morris, Rogaway 2012).

    Every round pairs each x with (k - x) mod size, k being the round's, and swaps the two where a hash says so.

    Args:
        positions: (n,) integers, each in [0, size).
        sizes: of the permutations, (n,) or one for all.
        keys: (n,) or (1,) uint64: equal keys and sizes are the same permutation.

    Returns:
        (n,) int64.
    """
    x = positions.astype(np.int64)
    size = np.asarray(sizes, np.int64)
    rounds = mix(keys + np.arange(1, _ROUNDS + 1, dtype=np.uint64)[:, None] * INCREMENT)
    pairings = (rounds % size.astype(np.uint64)).astype(np.int64)
    for key, pairing in zip(rounds, pairings, strict=True):
        partner = pairing - x
        partner = np.where(partner < 0, partner + size, partner)
        # Half of SplitMix64's finalizer: its first bit is what counts.
        pair = (np.maximum(x, partner).view(np.uint64) + key) * MIX1
        pair ^= pair >> np.uint64(32)
        x = np.where((pair * MIX2).view(np.int64) < 0, partner, x)
    return x


class BlockOrder:
    """Epochs of S = N // B steps for N samples and global batches of B; the rest of an epoch is dropped.

    Blocks of `block_size` consecutive samples, which begin at a place of the epoch's own, are put in random order, one
    after the other. This line of samples is cut into B lanes of S samples: lane j gives the j-th sample of every batch.
    So a batch's samples come from B different blocks, and a rank, whatever the number of ranks, reads the blocks of its
    own lanes alone. In its lane each `window` blocks, one after the other, are shuffled among themselves.

    Args:
        samples: N.
        global_batch_size: B.
        seed: of the run.
        block_size: samples that lie, and are read, together.
        window: blocks per lane that are in work at once; lanes begin new windows at different steps.
    """

    def __init__(self, samples: int, global_batch_size: int, seed: int, *, block_size: int, window: int) -> None:
        self.samples = samples
        self.global_batch_size = global_batch_size
        self.steps_per_epoch = samples // global_batch_size
        self.block_size = block_size
        self.window = window
        self._seed = seed

    def at(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """The samples (n,) int64 that lanes (n,) give at global step `step`."""
        epoch = step // self.steps_per_epoch
        place, first, last = self._window(step, lanes)
        keys = key_of(self._seed, epoch, _WINDOWS, first)
        return self._samples(epoch, first + shuffled(place - first, last - first, keys))

    def begins(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """Of `lanes` (n,) those (k,) that take the first sample of a window at `step`."""
        place, first, _ = self._window(step, lanes)
        return lanes[place == first]

    def ends(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """Of `lanes` (n,) those (k,) that take the last sample of a window at `step`."""
        place, _, last = self._window(step, lanes)
        return lanes[place == last - 1]

    def in_work(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """All samples, in no order, of the windows that `lanes` are in at `step`."""
        _, first, last = self._window(step, lanes)
        places = [np.arange(one, other) for one, other in zip(first, last, strict=True)]
        return self._samples(step // self.steps_per_epoch, np.concatenate([*places, np.empty(0, np.int64)]))

    def _window(self, step: int, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each lane (n,): its place on the line of shuffled blocks, and its window's first place and end there."""
        begin = lanes * self.steps_per_epoch
        place = begin + step % self.steps_per_epoch
        span = self.block_size * self.window
        shift = (lanes * _GOLDEN % 2**32 * self.window >> 32) * self.block_size
        first = (place + shift) // span * span - shift
        return place, np.maximum(first, begin), np.minimum(first + span, begin + self.steps_per_epoch)

    def _samples(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """What lies at `places` (n,) of the epoch's line of shuffled blocks."""
        blocks = self.samples // self.block_size
        block, within = np.divmod(places, self.block_size)
        # The samples after the last whole block stay at the end of the line; the epoch's start decides which they are.
        whole = block < blocks
        moved = shuffled(np.where(whole, block, 0), max(blocks, 1), key_of(self._seed, epoch, _BLOCKS))
        start = int(key_of(self._seed, epoch, _SHIFT)[0] % np.uint64(self.samples))
        return (np.where(whole, moved, block) * self.block_size + within + start) % self.samples
