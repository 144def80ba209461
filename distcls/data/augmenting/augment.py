"""Per-sample augmentation: which window of an image is taken and whether it is mirrored.

Every number drawn is a function of (seed, epoch, position in the epoch's order, transform, counter), so it is the same
on any number of workers and ranks and after any interruption, and a sample that comes twice in an epoch is augmented
twice. The pixels are made from the windows elsewhere (decode_cpu.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distcls.data.errors import DataError
from distcls.errors import ArgumentError
from distcls.registry import TRANSFORMS

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


def in_share(indices: np.ndarray, share: float) -> np.ndarray:
    """Which samples (n,) are among a fixed `share` of the data set: a function of their numbers alone.

    A larger share holds all of a smaller one.
    """
    drawn = _mix(indices.astype(np.uint64) * np.uint64(_INCREMENT) + np.uint64(_MIX2)) >> np.uint64(11)
    return drawn * 2.0**-53 < share


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


@TRANSFORMS.register
class RandomResizedCrop:
    """A window of random area and aspect ratio, resized to the resolution; torchvision's RandomResizedCrop.

    Args:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height.
    """

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ArgumentError("RandomResizedCrop.scale", f"got {list(scale)}, expected 0 < smallest <= largest <= 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise ArgumentError("RandomResizedCrop.ratio", f"got {list(ratio)}, expected 0 < smallest <= largest")
        self.scale = scale
        self.ratio = ratio

    def draw(self, windows: Windows, draws: Draws) -> None:
        height, width = windows.height, windows.width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        # Where ten tries fail: the largest centred window whose ratio is allowed.
        windows.cols = np.minimum(width, np.maximum(np.rint(height * self.ratio[1]).astype(np.int64), 1))
        windows.rows = np.minimum(height, np.maximum(np.rint(width / self.ratio[0]).astype(np.int64), 1))
        windows.top, windows.left = (height - windows.rows) // 2, (width - windows.cols) // 2
        open_ = np.arange(len(height))
        for attempt in range(10):
            counter = 4 * attempt
            area = (
                height[open_]
                * width[open_]
                * (self.scale[0] + (self.scale[1] - self.scale[0]) * draws.uniform(counter, open_))
            )
            ratio = np.exp(low + (high - low) * draws.uniform(counter + 1, open_))
            cols, rows = (
                np.rint(np.sqrt(area * ratio)).astype(np.int64),
                np.rint(np.sqrt(area / ratio)).astype(np.int64),
            )
            fits = (cols > 0) & (cols <= width[open_]) & (rows > 0) & (rows <= height[open_])
            done, rows, cols = open_[fits], rows[fits], cols[fits]
            windows.rows[done], windows.cols[done] = rows, cols
            windows.top[done] = draws.below(height[done] - rows + 1, counter + 2, done)
            windows.left[done] = draws.below(width[done] - cols + 1, counter + 3, done)
            open_ = open_[~fits]
            if not len(open_):
                break


@TRANSFORMS.register
class RandomCrop:
    """A window of the resolution's size, at a random place of the image in a black frame; torchvision's RandomCrop.

    Args:
        padding: width of the frame in pixels.
    """

    def __init__(self, padding: int = 0) -> None:
        if padding < 0:
            raise ArgumentError("RandomCrop.padding", f"got {padding}, expected 0 or more pixels")
        self.padding = padding

    def draw(self, windows: Windows, draws: Draws) -> None:
        size = windows.resolution
        free_rows = windows.height + 2 * self.padding - size
        free_cols = windows.width + 2 * self.padding - size
        small = np.flatnonzero((free_rows < 0) | (free_cols < 0))
        if len(small):
            height, width = windows.height[small[0]], windows.width[small[0]]
            raise DataError(
                f"RandomCrop: an image of {width}x{height} with padding {self.padding} is smaller than data.resolution "
                f"{size}: set padding to {-(-(size - min(height, width)) // 2)} or more, lower the resolution, or use "
                "RandomResizedCrop"
            )
        windows.top = draws.below(free_rows + 1, 0) - self.padding
        windows.left = draws.below(free_cols + 1, 1) - self.padding
        windows.rows = np.full_like(windows.top, size)
        windows.cols = np.full_like(windows.left, size)


@TRANSFORMS.register
class RandomHorizontalFlip:
    """Mirrors left and right.

    Args:
        p: probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ArgumentError("RandomHorizontalFlip.p", f"got {p}, expected a probability between 0 and 1")
        self.p = p

    def draw(self, windows: Windows, draws: Draws) -> None:
        windows.flip = windows.flip ^ (draws.uniform(0) < self.p)
