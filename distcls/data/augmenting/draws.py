"""Random numbers of augmentation: a function of (seed, epoch, position in the epoch's order, transform, counter).

They are therefore the same on any number of workers and ranks and after any interruption. A sample that occurs twice in
an epoch is augmented differently each time.
"""

import numpy as np

from distcls.data.splitmix import INCREMENT, MIX1, MIX2, key_of, mix

# Recorded with a run. Raise it with any change to what a random number does to an image: a resumed run would differ.
AUGMENT_VERSION = 1


class Draws:
    """A counter-based random number generator for n samples.

    Args:
        seed: the run's seed.
        epoch: the epoch.
        positions: (n,) integers, the samples' positions in the epoch's order.
        stream: the transform's place in the list of transforms.
    """

    def __init__(self, seed: int, epoch: int, positions: np.ndarray, stream: int) -> None:
        self.keys = mix(key_of(seed, epoch, stream) ^ mix(positions.astype(np.uint64) * INCREMENT + MIX1))

    def uniform(self, counter: int, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Uniform float64 in [0, 1), one for each sample of `which`."""
        offset = np.uint64((counter + 1) * int(INCREMENT) & 0xFFFFFFFFFFFFFFFF)
        return (mix(self.keys[which] + offset) >> np.uint64(11)) * 2.0**-53

    def normal(self, counter: int) -> np.ndarray:
        """Standard normal float64, one for each sample; uses up two counters."""
        radius = np.sqrt(-2 * np.log(1 - self.uniform(counter)))
        return radius * np.cos(2 * np.pi * self.uniform(counter + 1))

    def below(self, limit: np.ndarray, counter: int, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Uniform int64 in [0, limit)."""
        return (self.uniform(counter, which) * limit).astype(np.int64)


def in_share(indices: np.ndarray, share: float) -> np.ndarray:
    """Which samples (n,) belong to a fixed `share` of the data set: a function of their indices alone.

    A larger share contains every smaller one.
    """
    drawn = mix(indices.astype(np.uint64) * INCREMENT + MIX2) >> np.uint64(11)
    return drawn * 2.0**-53 < share
