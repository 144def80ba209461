"""Exponential moving average of the weights (Polyak averaging), as in timm and in torchvision's references."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """``average += (1 - decay) * (weight - average)`` after every `every_steps` updates, in one fused operation.

    Args:
        weights: name -> the tensor to average, not copied: a parameter, or this rank's part of a sharded one.
        decay: share of itself that the average keeps each time, e.g. 0.9999.
        every_steps: optimizer updates between two updates of the average.
        start_step: up to this update the average equals the weights, so that a warm-up does not count.
        buffers: name -> floating-point buffers to average in the same way, such as BatchNorm's running statistics on
            this rank. For other buffers the model's own are used.
        changed: called after `applied` has written to the weights.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        decay: float,
        every_steps: int = 1,
        start_step: int = 0,
        buffers: Mapping[str, Tensor] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.decay = decay
        self.every_steps = every_steps
        self.start_step = start_step
        buffers = buffers or {}
        self._names, self._buffer_names = list(weights), list(buffers)
        self._own = [tensor.detach() for tensor in (*weights.values(), *buffers.values())]
        self._average = [tensor.clone() for tensor in self._own]
        self._changed = changed

    def update(self, step: int) -> None:
        """Call it after every optimizer update; `step` counts them from 1."""
        if step % self.every_steps:
            return
        if step <= self.start_step:
            torch._foreach_copy_(self._average, self._own)
        else:
            torch._foreach_lerp_(self._average, self._own, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in place of the model's weights within the block, and restore them after it."""
        own = [tensor.clone() for tensor in self._own]
        torch._foreach_copy_(self._own, self._average)
        self._changed()
        try:
            yield
        finally:
            torch._foreach_copy_(self._own, own)
            self._changed()

    def state(self) -> dict[str, Tensor]:
        """Name -> average, of the weights."""
        return dict(zip(self._names, self._average, strict=False))

    def buffers(self) -> dict[str, Tensor]:
        """Name -> average, of the buffers."""
        return dict(zip(self._buffer_names, self._average[len(self._names) :], strict=True))

    def load(self, state: Mapping[str, Tensor], buffers: Mapping[str, Tensor] | None = None) -> None:
        """Continue from saved averages of the weights and the buffers."""
        averages, values = {**self.state(), **self.buffers()}, {**state, **(buffers or {})}
        for name, average in averages.items():
            if average.numel():  # a rank may hold no part of a small tensor
                average.copy_(values[name].view(average.shape))
