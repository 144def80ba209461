"""An order for data larger than memory: blocks of neighbours, shuffled over the whole set and mixed in windows.

Nothing is stored: which sample comes when is computed from (seed, epoch, step, place in the batch), so any step is as
cheap to begin at as the first, and a billion samples cost no memory.
"""

import numpy as np

# SplitMix64 (Steele, Lea, Flood 2014): its increment and the two multipliers of its finalizer.
_INCREMENT, _MIX1, _MIX2 = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_GOLDEN = 2654435769  # 2**32 over the golden ratio: multiples of it are spread evenly modulo 2**32
_ROUNDS = 24
_BLOCKS, _SHIFT, _WINDOWS = range(3)  # what a key is drawn for


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: uint64 -> uint64, one to one."""
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


def _key(*numbers: int | np.ndarray) -> np.ndarray:
    """uint64 (n,) from numbers, or arrays (n,) of them."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = _mix(key * _INCREMENT + np.asarray(number).astype(np.uint64) + _INCREMENT)
    return key


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
    rounds = _mix(keys + np.arange(1, _ROUNDS + 1, dtype=np.uint64)[:, None] * _INCREMENT)
    pairings = (rounds % size.astype(np.uint64)).astype(np.int64)
    for key, pairing in zip(rounds, pairings, strict=True):
        partner = pairing - x
        partner = np.where(partner < 0, partner + size, partner)
        # Half of SplitMix64's finalizer: its first bit is what counts.
        pair = (np.maximum(x, partner).view(np.uint64) + key) * _MIX1
        pair ^= pair >> np.uint64(32)
        x = np.where((pair * _MIX2).view(np.int64) < 0, partner, x)
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
        keys = _key(self._seed, epoch, _WINDOWS, first)
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
        # What is left after the last whole block stays behind it; where that is in the set, the epoch says.
        whole = block < blocks
        moved = shuffled(np.where(whole, block, 0), max(blocks, 1), _key(self._seed, epoch, _BLOCKS))
        start = int(_key(self._seed, epoch, _SHIFT)[0] % np.uint64(self.samples))
        return (np.where(whole, moved, block) * self.block_size + within + start) % self.samples
