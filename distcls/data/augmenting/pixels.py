"""Augmentation of pixels: numbers are drawn per sample on the host, operations run for the whole batch on the device.

If a recipe has such a transform, the decoder returns pixel values 0..255 (by using mean 0 and standard deviation 1/255,
at no extra cost), and images are normalised last, here. So nothing has to be denormalised, and a recipe without such
transforms needs only the decoder's kernel.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.pixel_ops import OPS, WARP, warp
from distcls.data.augmenting.random_erasing import RandomErasing, to_device
from distcls.data.augmenting.windows import OnDevice, Transform

IDENTITY = "Identity"
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Fill = float | tuple[float, float, float]


@dataclass(frozen=True)
class Layer:
    """One operation for each of n images.

    Attributes:
        ops: (n,) names of OPS, or WARP, or IDENTITY.
        values: (n, 6) float32: a warp's matrix; of the other operations the first is the amount.
        interpolation, fill: of the warps.
    """

    ops: np.ndarray
    values: np.ndarray
    interpolation: Interpolation = "nearest"
    fill: Fill = 0.0


class PixelTransform(OnDevice, ABC):
    """A transform that draws layers of operations, which are applied in turn."""

    @abstractmethod
    def layers(self, draws: Draws, resolution: int) -> Sequence[Layer]: ...


class PixelStage:
    """The last steps on the device: layers of operations, normalising, erasing.

    Args:
        transforms: all of `data.augment`; those that change windows are skipped but keep their places.
        seed: the run's seed.
        mean, std: per channel on the scale 0..1.
        dtype: of the result.
    """

    def __init__(
        self,
        transforms: Sequence[Transform | OnDevice],
        *,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
    ) -> None:
        places = list(enumerate(transforms))
        self._pixel = [(place, one) for place, one in places if isinstance(one, PixelTransform)]
        self._erasing = [(place, one) for place, one in places if isinstance(one, RandomErasing)]
        self._seed = seed
        self._mean, self._std, self.dtype = tuple(mean), tuple(std), dtype

    @property
    def takes_raw(self) -> bool:
        """Whether it takes pixel values 0..255 and normalises them; else it takes normalised images."""
        return bool(self._pixel)

    def __bool__(self) -> bool:
        return bool(self._pixel or self._erasing)

    def draw(self, epoch: int, positions: np.ndarray, resolution: int) -> Callable[[Tensor], Tensor]:
        """A function for the images (N, 3, R, R) at `positions` (N,) of the epoch's order; it may overwrite them."""
        layers = [
            layer
            for place, transform in self._pixel
            for layer in transform.layers(Draws(self._seed, epoch, positions, place), resolution)
        ]
        erasures = [
            transform.boxes(Draws(self._seed, epoch, positions, place), resolution)
            for place, transform in self._erasing
        ]

        def apply(images: Tensor) -> Tensor:
            if self.takes_raw:
                images = self._normalised(apply_layers(images.round_(), layers))
            for erasure in erasures:
                erasure(images)
            return images

        return apply

    def _normalised(self, images: Tensor) -> Tensor:
        mean = to_device(255 * np.array(self._mean), images).view(1, 3, 1, 1)
        scale = to_device(1 / (255 * np.array(self._std)), images).view(1, 3, 1, 1)
        return images.sub_(mean).mul_(scale).to(self.dtype)


def apply_layers(images: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Images (N, 3, R, R), whole numbers 0..255, changed in place; those with the same operation are done together."""
    if not layers:
        return images
    orders = [np.argsort(layer.ops, kind="stable") for layer in layers]
    # One asynchronous copy for all layers.
    rows_of = to_device(np.stack(orders), images, torch.int64)
    values_of = to_device(np.stack([layer.values[order] for layer, order in zip(layers, orders, strict=True)]), images)
    for layer, order, rows, values in zip(layers, orders, rows_of, values_of, strict=True):
        names, starts = np.unique(layer.ops[order], return_index=True)
        for name, first, last in zip(names, starts, [*starts[1:], len(order)], strict=True):
            if name == IDENTITY:
                continue
            which = rows[first:last]
            some = images.index_select(0, which)
            if name == WARP:
                fill = to_device(np.broadcast_to(layer.fill, 3), images)
                done = warp(some, values[first:last], interpolation=layer.interpolation, fill=fill)
            else:
                done = OPS[name](some, values[first:last, 0])
            images.index_copy_(0, which, done)
    return images
