"""Random numbers of augmentation: a function of (seed, epoch, position in the epoch's order, transform, counter).

So they are the same on any number of workers and ranks and after any interruption, and a sample that comes twice in an
epoch is augmented twice.
"""

import numpy as np

# Recorded with a run: a change of what a random number does to an image changes what a resumed run would see.
AUGMENT_VERSION = 1

# SplitMix64 (Steele, Lea, Flood 2014): its increment and the two multipliers of its finalizer.
_INCREMENT, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: uint64 -> uint64, one to one, every input bit moving every output bit."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    return z ^ (z >> np.uint64(31))


class Draws:
    """A counter random number generator for n samples: a number follows from its place, not from earlier ones.

    Args:
        seed: the run's seed.
        epoch: the epoch.
        positions: (n,) integers, the samples' positions in the epoch's order.
        stream: the transform's place in the list of transforms.
    """

    def __init__(self, seed: int, epoch: int, positions: np.ndarray, stream: int) -> None:
        key = np.zeros(1, np.uint64)
        for number in (seed, epoch, stream):
            key = _mix(key * np.uint64(_INCREMENT) + np.uint64(number) + np.uint64(_INCREMENT))
        self.keys = _mix(key ^ _mix(positions.astype(np.uint64) * np.uint64(_INCREMENT) + np.uint64(_MIX1)))

    def uniform(self, counter: int, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Uniform float64 in [0, 1), one for each sample of `which`."""
        offset = np.uint64((counter + 1) * _INCREMENT & 0xFFFFFFFFFFFFFFFF)
        return (_mix(self.keys[which] + offset) >> np.uint64(11)) * 2.0**-53

    def normal(self, counter: int) -> np.ndarray:
        """Standard normal float64, one for each sample; takes `counter` and the one after it."""
        radius = np.sqrt(-2 * np.log(1 - self.uniform(counter)))
        return radius * np.cos(2 * np.pi * self.uniform(counter + 1))

    def below(self, limit: np.ndarray, counter: int, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Uniform int64 in [0, limit)."""
        return (self.uniform(counter, which) * limit).astype(np.int64)


def in_share(indices: np.ndarray, share: float) -> np.ndarray:
    """Which samples (n,) are among a fixed `share` of the data set: a function of their numbers alone.

    A larger share holds all of a smaller one.
    """
    drawn = _mix(indices.astype(np.uint64) * np.uint64(_INCREMENT) + np.uint64(_MIX2)) >> np.uint64(11)
    return drawn * 2.0**-53 < share
