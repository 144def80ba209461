"""Sampling order for data larger than memory: shuffled blocks of adjacent samples, mixed within windows of blocks.

Nothing is stored: each sample index is computed from (seed, epoch, step, position in the batch). So a run can start at
any step as cheaply as at the first, and a billion samples take no memory.
"""

import numpy as np

from distcls.data.splitmix import INCREMENT, MIX1, MIX2, key_of, mix

_GOLDEN = 2654435769  # 2**32 / golden ratio: its multiples are spread evenly modulo 2**32
_ROUNDS = 24
_BLOCKS, _SHIFT, _WINDOWS = range(3)  # what a key is derived for


def shuffled(positions: np.ndarray, sizes: np.ndarray | int, keys: np.ndarray) -> np.ndarray:
    """Map positions by a keyed random permutation of range(size): swap-or-not (Hoang, Morris, Rogaway 2012).

    Each round pairs every x with (k - x) mod size, where k is the round's key, and swaps the two if a hash bit is set.

    Args:
        positions: (n,) integers, each in [0, size).
        sizes: of the permutations, (n,) or one for all.
        keys: (n,) or (1,) uint64: equal keys and sizes give the same permutation.

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
        # Half of SplitMix64's finalizer, of which only the top bit is used.
        pair = (np.maximum(x, partner).view(np.uint64) + key) * MIX1
        pair ^= pair >> np.uint64(32)
        x = np.where((pair * MIX2).view(np.int64) < 0, partner, x)
    return x


class BlockOrder:
    """Epochs of S = N // B steps for N samples and global batches of B; the rest of an epoch is dropped.

    The samples, rotated by an offset drawn per epoch, are cut into blocks of `block_size` consecutive ones, and the
    blocks are put in random order. This sequence is cut into B lanes of S samples: lane j provides the j-th sample of
    every batch. So the samples of a batch come from different blocks, and a rank reads only the blocks of its own
    lanes, whatever the number of ranks. Within a lane, the samples of every `window` successive blocks are shuffled
    together.

    Args:
        samples: N.
        global_batch_size: B.
        seed: of the run.
        block_size: consecutive samples that are stored and read together.
        window: blocks per lane that are mixed at a time; lanes begin new windows at different steps.
    """

    def __init__(self, samples: int, global_batch_size: int, seed: int, *, block_size: int, window: int) -> None:
        self.samples = samples
        self.global_batch_size = global_batch_size
        self.steps_per_epoch = samples // global_batch_size
        self.block_size = block_size
        self.window = window
        self._seed = seed

    def at(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """The sample indices (n,) int64 of `lanes` (n,) at global step `step`."""
        epoch = step // self.steps_per_epoch
        place, first, last = self._window(step, lanes)
        keys = key_of(self._seed, epoch, _WINDOWS, first)
        return self._samples(epoch, first + shuffled(place - first, last - first, keys))

    def begins(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """Those of `lanes` (n,) that take the first sample of a window at `step`: (k,)."""
        place, first, _ = self._window(step, lanes)
        return lanes[place == first]

    def ends(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """Those of `lanes` (n,) that take the last sample of a window at `step`: (k,)."""
        place, _, last = self._window(step, lanes)
        return lanes[place == last - 1]

    def in_work(self, step: int, lanes: np.ndarray) -> np.ndarray:
        """Indices of all samples of the windows that `lanes` are in at `step`, in no particular order."""
        _, first, last = self._window(step, lanes)
        places = [np.arange(one, other) for one, other in zip(first, last, strict=True)]
        return self._samples(step // self.steps_per_epoch, np.concatenate([*places, np.empty(0, np.int64)]))

    def _window(self, step: int, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per lane (n,): its position in the sequence of shuffled blocks, and the start and end of its window there."""
        begin = lanes * self.steps_per_epoch
        place = begin + step % self.steps_per_epoch
        span = self.block_size * self.window
        shift = (lanes * _GOLDEN % 2**32 * self.window >> 32) * self.block_size
        first = (place + shift) // span * span - shift
        return place, np.maximum(first, begin), np.minimum(first + span, begin + self.steps_per_epoch)

    def _samples(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Sample indices at positions `places` (n,) of the epoch's sequence of shuffled blocks."""
        blocks = self.samples // self.block_size
        block, within = np.divmod(places, self.block_size)
        # The incomplete last block stays at the end; which samples it holds depends on the epoch's offset.
        whole = block < blocks
        moved = shuffled(np.where(whole, block, 0), max(blocks, 1), key_of(self._seed, epoch, _BLOCKS))
        start = int(key_of(self._seed, epoch, _SHIFT)[0] % np.uint64(self.samples))
        return (np.where(whole, moved, block) * self.block_size + within + start) % self.samples
