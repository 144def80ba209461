"""Which window of each image is taken, and whether it is mirrored; decoding/ makes the pixels from that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distcls.data.augmenting.draws import Draws


@dataclass
class Windows:
    """For each of n images the window that becomes the (resolution, resolution) output; (n,) int64, in stored pixels.

    A window starts as the largest centred square. It may reach outside the image only if it needs no resizing
    (rows == cols == resolution); outside, the output is 0.
    """

    resolution: int
    height: np.ndarray
    width: np.ndarray
    top: np.ndarray
    left: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    flip: np.ndarray

    @classmethod
    def centred(cls, height: np.ndarray, width: np.ndarray, resolution: int, crop_ratio: float = 1.0) -> "Windows":
        """Centred squares of `crop_ratio` times the shorter side, as FFCV's CenterCropRGBImageDecoder takes them."""
        height, width = height.astype(np.int64), width.astype(np.int64)
        side = np.maximum((crop_ratio * np.minimum(height, width)).astype(np.int64), 1)
        flip = np.zeros(len(height), np.int64)
        return cls(resolution, height, width, (height - side) // 2, (width - side) // 2, side, side.copy(), flip)

    @property
    def inside(self) -> np.ndarray:
        """(n,) bool: which windows lie entirely inside their image."""
        bottom, right = self.top + self.rows, self.left + self.cols
        return (self.top >= 0) & (self.left >= 0) & (bottom <= self.height) & (right <= self.width)

    def packed(self, shrinkable: np.ndarray) -> np.ndarray:
        """What the kernels read: (n, 6) int32 of top, left, rows, cols, flip, denominator.

        A JPEG can be decoded to 1/2, 1/4 or 1/8 of its size for a fraction of the cost. This is done, with that
        denominator, as long as the window stays at least as large as the output. The window then counts pixels of the
        smaller image; rounding moves its edges by at most half an output pixel.

        Args:
            shrinkable: (n,) bool, which images may be decoded to a smaller size.
        """
        spare = np.minimum(self.rows, self.cols) // self.resolution
        denominator = np.where(shrinkable, np.select([spare >= 8, spare >= 4, spare >= 2], [8, 4, 2], 1), 1)
        edges = np.stack((self.top, self.left, self.top + self.rows, self.left + self.cols))
        top, left, bottom, right = (edges + denominator // 2) // denominator
        return np.stack((top, left, bottom - top, right - left, self.flip, denominator), 1).astype(np.int32)


class Transform(Protocol):
    """A transform that changes windows in place, with its own random numbers."""

    def draw(self, windows: Windows, draws: Draws) -> None: ...


class OnDevice:
    """Base of the transforms that change pixels, not windows: on the device, after decoding, in their order."""


def draw_windows(
    transforms: Sequence[Transform | OnDevice], windows: Windows, seed: int, epoch: int, positions: np.ndarray
) -> Windows:
    """Let each transform change `windows` in turn; an `OnDevice` one only keeps its place, hence its numbers."""
    for place, transform in enumerate(transforms):
        if isinstance(transform, OnDevice):
            continue
        transform.draw(windows, Draws(seed, epoch, positions, place))
    return windows
