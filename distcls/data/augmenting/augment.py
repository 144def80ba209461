"""The augmentations that choose a window: crops and the mirror."""

import math

import numpy as np

from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.windows import Windows
from distcls.data.errors import DataError
from distcls.errors import ArgumentError
from distcls.registry import TRANSFORMS


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
