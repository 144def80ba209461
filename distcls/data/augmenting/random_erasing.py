"""RandomErasing: replaces a box of each image by a value or noise, after normalising."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.windows import OnDevice
from distcls.errors import ArgumentError
from distcls.registry import TRANSFORMS

_TRIES = 10


@TRANSFORMS.register
class RandomErasing(OnDevice):
    """Erases a box (Zhong et al. 2017); torchvision's RandomErasing.

    It is applied last, to normalised images, as in torchvision's references and timm: value 0 is the data set's mean
    colour.

    Args:
        p: probability.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest height / width.
        value: what the box is filled with, one number or one for each channel; random: normal noise.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | tuple[float, float, float] | Literal["random"] = 0.0,
    ) -> None:
        if not 0 <= p <= 1:
            raise ArgumentError("RandomErasing.p", f"got {p}, expected a probability between 0 and 1")
        if not 0 <= scale[0] <= scale[1] <= 1:
            raise ArgumentError("RandomErasing.scale", f"got {list(scale)}, expected 0 <= smallest <= largest <= 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise ArgumentError("RandomErasing.ratio", f"got {list(ratio)}, expected 0 < smallest <= largest")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.value = value

    def draw_boxes(self, draws: Draws, resolution: int) -> np.ndarray:
        """(n, 4) int64 of top, left, height, width; zeros where nothing is erased."""
        boxes = np.zeros((len(draws.keys), 4), np.int64)
        open_ = np.flatnonzero(draws.uniform(0) < self.p)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for attempt in range(_TRIES):
            counter = 1 + 4 * attempt
            share = self.scale[0] + (self.scale[1] - self.scale[0]) * draws.uniform(counter, open_)
            ratio = np.exp(low + (high - low) * draws.uniform(counter + 1, open_))
            height = np.rint(resolution * np.sqrt(share * ratio)).astype(np.int64)
            width = np.rint(resolution * np.sqrt(share / ratio)).astype(np.int64)
            fits = (height < resolution) & (width < resolution)
            done, height, width = open_[fits], height[fits], width[fits]
            top = draws.below(resolution - height + 1, counter + 2, done)
            left = draws.below(resolution - width + 1, counter + 3, done)
            boxes[done] = np.stack((top, left, height, width), 1)
            open_ = open_[~fits]
            if not len(open_):
                break
        return boxes

    def boxes(self, draws: Draws, resolution: int) -> Callable[[Tensor], None]:
        """A function that erases boxes of normalised images (n, 3, R, R) in place."""
        boxes = self.draw_boxes(draws, resolution)
        keys = (draws.uniform(1 + 4 * _TRIES) * 2**53).astype(np.int64)
        which = np.flatnonzero(boxes[:, 2] * boxes[:, 3])

        def erase(images: Tensor) -> None:
            if not len(which):
                return
            rows = to_device(which, images, torch.int64)
            top, left, height, width = to_device(boxes[which], images, torch.int64).view(-1, 4, 1, 1, 1).unbind(1)
            y = torch.arange(resolution, device=images.device).view(1, 1, -1, 1)
            x = torch.arange(resolution, device=images.device).view(1, 1, 1, -1)
            inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
            some = images.index_select(0, rows)
            if self.value == "random":
                value = _noise(to_device(keys[which], images, torch.int64), some.shape[1:]).to(images.dtype)
            else:
                value = to_device(np.broadcast_to(np.array(self.value, float), 3), images).view(1, 3, 1, 1)
            images.index_copy_(0, rows, torch.where(inside, value, some))

        return erase


def to_device(array: np.ndarray, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`array` on the device of `like`, with its dtype unless given; does not wait for a GPU."""
    tensor = torch.from_numpy(np.array(array)).to(dtype or like.dtype)
    return tensor.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else tensor


def _noise(keys: Tensor, shape: torch.Size) -> Tensor:
    """Standard normal (n, *shape) float32, each number a function of its image's key and its place."""
    places = torch.arange(shape.numel(), device=keys.device).view(1, *shape)
    keys = keys.view(-1, *[1] * len(shape))
    uniform = [((_mix(_mix(keys + half) + places) >> 40) & 0xFFFFFF).float() for half in (1, 2)]
    radius = torch.sqrt(-2 * torch.log((uniform[0] + 0.5) * 2.0**-24))
    return radius * torch.cos(uniform[1] * (2 * math.pi * 2.0**-24))


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64; data/splitmix.py has it in numpy."""
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    return z ^ ((z >> 31) & (2**33 - 1))


def _signed(number: int) -> int:
    return number - 2**64
