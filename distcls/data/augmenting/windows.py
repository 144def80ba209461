"""Which window of an image is taken and whether it is mirrored; decoding/ makes the pixels from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distcls.data.augmenting.draws import Draws


@dataclass
class Windows:
    """For n images the window that becomes the (resolution, resolution) output; (n,) int64, in pixels as stored.

    A window starts as the largest centred square. It may reach outside of the image only where it needs no resize
    (rows == cols == resolution): there the output is 0.
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
        """Squares of `crop_ratio` times the shorter side, as FFCV's CenterCropRGBImageDecoder."""
        height, width = height.astype(np.int64), width.astype(np.int64)
        side = np.maximum((crop_ratio * np.minimum(height, width)).astype(np.int64), 1)
        flip = np.zeros(len(height), np.int64)
        return cls(resolution, height, width, (height - side) // 2, (width - side) // 2, side, side.copy(), flip)

    @property
    def inside(self) -> np.ndarray:
        """(n,) bool: which lie wholly in their image."""
        bottom, right = self.top + self.rows, self.left + self.cols
        return (self.top >= 0) & (self.left >= 0) & (bottom <= self.height) & (right <= self.width)

    def packed(self, shrinkable: np.ndarray) -> np.ndarray:
        """What the kernels read: (n, 6) int32 of top, left, rows, cols, flip, denominator.

        A JPEG decodes for a fraction of the cost to 1/2, 1/4 or 1/8 of its size. Where the window stays as large as the
        output, the denominator says so, and the window counts pixels of the smaller image, its edges rounded: they move
        by half an output pixel at most.

        Args:
            shrinkable: (n,) bool, which images are JPEGs.
        """
        spare = np.minimum(self.rows, self.cols) // self.resolution
        denominator = np.where(shrinkable, np.select([spare >= 8, spare >= 4, spare >= 2], [8, 4, 2], 1), 1)
        edges = np.stack((self.top, self.left, self.top + self.rows, self.left + self.cols))
        top, left, bottom, right = (edges + denominator // 2) // denominator
        return np.stack((top, left, bottom - top, right - left, self.flip, denominator), 1).astype(np.int32)


class Transform(Protocol):
    """Changes windows in place, with random numbers of its own."""

    def draw(self, windows: Windows, draws: Draws) -> None: ...


class OnDevice:
    """Base of the transforms that change no windows, but pixels, on the device: after all windows, in their order."""


def draw_windows(
    transforms: Sequence[Transform | OnDevice], windows: Windows, seed: int, epoch: int, positions: np.ndarray
) -> Windows:
    """Let each transform change `windows` in turn; an `OnDevice` one has a place, but no turn."""
    for place, transform in enumerate(transforms):
        if isinstance(transform, OnDevice):
            continue
        transform.draw(windows, Draws(seed, epoch, positions, place))
    return windows
