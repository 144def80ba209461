"""Multi-label targets in a .beton: one bit per class, packed into FFCV int fields of 64 bits.

FFCV's array field would store each image's labels next to its pixels, scattered over the file. Int fields lie in the
metadata records at its beginning: they are read at once and entirely covered by the fingerprint.
"""

import numpy as np

_BITS = 64
MOST_CLASSES = 254 * _BITS  # a .beton has at most 255 fields, and one is the image


def words_for(classes: int) -> int:
    """Number of int fields that hold `classes` bits."""
    return -(-classes // _BITS)


def pack(labels: np.ndarray) -> np.ndarray:
    """Labels (..., C) of 0 and 1 -> (..., words) int64."""
    missing = words_for(labels.shape[-1]) * _BITS - labels.shape[-1]
    padded = np.concatenate([labels.astype(bool), np.zeros((*labels.shape[:-1], missing), bool)], axis=-1)
    return np.packbits(padded, axis=-1, bitorder="little").view("<i8")


def unpack(words: np.ndarray, classes: int) -> np.ndarray:
    """The inverse: (N, words) int64 -> (N, C) uint8 of 0 and 1."""
    octets = np.ascontiguousarray(words, "<i8").view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=classes, bitorder="little")
