"""SplitMix64 (Steele, Lea, Flood 2014) as a hash: random numbers that depend on their place alone."""

import numpy as np

INCREMENT, MIX1, MIX2 = (np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix(z: np.ndarray) -> np.ndarray:
    """The finalizer: uint64 -> uint64, one to one, every input bit affecting every output bit."""
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return z ^ (z >> np.uint64(31))


def key_of(*numbers: int | np.ndarray) -> np.ndarray:
    """A key (1,) uint64 from numbers, or keys (n,) where some of them are arrays (n,)."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = mix(key * INCREMENT + np.asarray(number).astype(np.uint64) + INCREMENT)
    return key
