"""Exponential moving average of the weights (Polyak averaging), as in timm and in torchvision's references."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """``average += (1 - decay) * (weight - average)`` after every `every_steps` updates, in one fused operation.

    Only parameters are averaged. BatchNorm's running statistics are those of the model itself.

    Args:
        weights: name -> what is followed, in place: a model's parameters, or of a sharded model this rank's part of
            each.
        decay: share of itself that the average keeps each time, e.g. 0.9999.
        every_steps: optimizer updates from one time to the next.
        start_step: the average is the weights themselves up to this update: those of a warm-up do not count.
        changed: called when `applied` has written to the weights.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        decay: float,
        every_steps: int = 1,
        start_step: int = 0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.decay = decay
        self.every_steps = every_steps
        self.start_step = start_step
        self._names = list(weights)
        self._weights = [weight.detach() for weight in weights.values()]
        self._average = [weight.clone() for weight in self._weights]
        self._changed = changed

    def update(self, step: int) -> None:
        """Call it after every optimizer update; `step` counts them from 1."""
        if step % self.every_steps:
            return
        if step <= self.start_step:
            torch._foreach_copy_(self._average, self._weights)
        else:
            torch._foreach_lerp_(self._average, self._weights, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in the model's place for the time of the block; after it every weight is what it was."""
        own = [weight.clone() for weight in self._weights]
        torch._foreach_copy_(self._weights, self._average)
        self._changed()
        try:
            yield
        finally:
            torch._foreach_copy_(self._weights, own)
            self._changed()

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self._names, self._average, strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, average in zip(self._names, self._average, strict=True):
            if average.numel():  # a rank may have no part of a small one
                average.copy_(state[name].view(average.shape))
