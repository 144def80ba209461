"""Exponential moving average of the weights (Polyak averaging), as timm's ModelEmaV3 without its warm-up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """``average += (1 - decay) * (weight - average)`` after every optimizer step, in one fused operation.

    Only parameters are averaged. BatchNorm's running statistics are those of the model itself.

    Args:
        model: whose parameters are followed. decay: share of the average that a step keeps, e.g. 0.9999.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in model.named_parameters()]
        self._weights = [parameter.detach() for parameter in model.parameters()]
        self._average = [weight.clone() for weight in self._weights]

    def update(self) -> None:
        torch._foreach_lerp_(self._average, self._weights, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in the model's place for the time of the block; after it every weight is what it was."""
        own = [weight.clone() for weight in self._weights]
        torch._foreach_copy_(self._weights, self._average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._weights, own)

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self._names, self._average, strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])
