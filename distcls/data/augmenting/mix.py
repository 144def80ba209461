"""Mixing of pairs of images and their labels: Mixup and CutMix, with one draw per global step.

Position i of the global batch mixes with i ^ 1 (0 with 1, 2 with 3, ...). Both lie in the same micro-batch as long as
micro-batches are even, and the draw is a function of (seed, step): the same on any number of ranks and accumulations.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distcls.errors import ArgumentError
from distcls.registry import MIXES

# Mixes images (N, 3, R, R) and soft labels (N, C) in place.
Mixed = Callable[[Tensor, Tensor], None]


class Mix(Protocol):
    """One way to mix. `p`: its probability; None: an equal share of what the others leave."""

    p: float | None

    def draw(self, generator: np.random.Generator, resolution: int) -> Mixed: ...


@MIXES.register
class Mixup:
    """Weighted means of two images and of their labels (Zhang et al. 2017); torchvision's MixUp.

    Args:
        alpha: an image's own weight is drawn from Beta(alpha, alpha).
        p: probability that a step is mixed this way; null: an equal share of what the others in `data.mix` leave.
    """

    def __init__(self, alpha: float = 1.0, p: float | None = None) -> None:
        self.alpha, self.p = _checked("Mixup", alpha, p)

    def draw(self, generator: np.random.Generator, resolution: int) -> Mixed:
        weight = generator.beta(self.alpha, self.alpha)

        def blend(images: Tensor, target: Tensor) -> None:
            _blend(images, weight)
            _blend(target, weight)

        return blend


@MIXES.register
class CutMix:
    """A box of one image in the other, labels weighted by area (Yun et al. 2019); torchvision's CutMix.

    Args:
        alpha: the share that an image keeps is drawn from Beta(alpha, alpha), before the box is cut off at the edges.
        p: probability that a step is mixed this way; null: an equal share of what the others in `data.mix` leave.
    """

    def __init__(self, alpha: float = 1.0, p: float | None = None) -> None:
        self.alpha, self.p = _checked("CutMix", alpha, p)

    def draw(self, generator: np.random.Generator, resolution: int) -> Mixed:
        half = int(0.5 * math.sqrt(1 - generator.beta(self.alpha, self.alpha)) * resolution)
        x, y = generator.integers(resolution, size=2).tolist()
        left, right = max(x - half, 0), min(x + half, resolution)
        top, bottom = max(y - half, 0), min(y + half, resolution)
        weight = 1 - (right - left) * (bottom - top) / resolution**2

        def paste(images: Tensor, target: Tensor) -> None:
            box = images[:, :, top:bottom, left:right]
            even = box[0::2].clone()
            box[0::2] = box[1::2]
            box[1::2] = even
            _blend(target, weight)

        return paste


class Mixing:
    """Chooses, for each global step, one entry of `data.mix` at random, or none.

    Args:
        mixes: constructed MIXES.
        seed: the run's seed.
        num_classes: C.

    Raises:
        UserError: the probabilities add up to more than 1.
    """

    def __init__(self, mixes: Sequence[Mix], *, seed: int, num_classes: int) -> None:
        given = sum(mix.p for mix in mixes if mix.p is not None)
        if given > 1 + 1e-9:
            raise ArgumentError(
                "data.mix", f"p: got {given:g} in sum, expected at most 1; the rest of the steps is not mixed"
            )
        open_ = sum(mix.p is None for mix in mixes)
        shares = [(1 - given) / open_ if mix.p is None else mix.p for mix in mixes]
        self._mixes = list(mixes)
        self._ends = np.cumsum(shares)
        if open_:
            self._ends[-1] = 1.0  # whatever the sum rounds to
        self._seed = seed
        self._num_classes = num_classes

    def draw(self, step: int, resolution: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """A function that mixes images (N, 3, R, R) and targets, (N,) int64 or (N, C), of any micro-batch of `step`.

        It changes the images in place. It returns targets (N, C) even in a step without mixing, so that the loss always
        gets the same kind.
        """
        # The order of an epoch uses the counters from 0 on.
        generator = np.random.Generator(np.random.Philox(key=[self._seed, step], counter=[0, 0, 1, 0]))
        choice = int(np.searchsorted(self._ends, generator.random(), side="right"))
        mixed = self._mixes[choice].draw(generator, resolution) if choice < len(self._mixes) else None

        def mix(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            kind = torch.promote_types(images.dtype, torch.float32)
            soft = (F.one_hot(target, self._num_classes) if target.ndim == 1 else target).to(kind, copy=True)
            if mixed is not None:
                mixed(images, soft)
            return images, soft

        return mix


def _blend(x: Tensor, weight: float) -> None:
    """x[i] = weight * x[i] + (1 - weight) * x[i ^ 1], in place."""
    even, odd = x[0::2], x[1::2]
    change = (odd - even).mul_(1 - weight)
    even.add_(change)
    odd.sub_(change)


def _checked(name: str, alpha: float, p: float | None) -> tuple[float, float | None]:
    if not alpha > 0:
        raise ArgumentError(f"{name}.alpha", f"got {alpha}, expected a number above 0")
    if p is not None and not 0 <= p <= 1:
        raise ArgumentError(f"{name}.p", f"got {p}, expected a probability between 0 and 1")
    return alpha, p
