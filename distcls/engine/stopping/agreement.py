"""Lets all ranks act at the same step on a stop request or a non-finite loss on any of them.

Each step posts one small all-reduce, whose result is read a fixed number of steps later: every rank acts at the same
step, and no step waits for the network or the GPU.
"""

from collections import deque

import torch

from distcls.engine.ranks.reduction import SumOverRanks

LAG = 3  # steps between posting and acting: well under a second for most models; grace periods last tens of seconds


class Agreement:
    """Exchanges flags between ranks: `post` every step; `update` reads what all ranks posted LAG steps ago.

    Attributes:
        stop: whether any rank was asked to stop.
        broken_at: the first step with a non-finite number on any rank, or None.

    Both are the same on all ranks after each `update`.

    Args:
        device: of the losses.
        world_size: number of ranks; with one, nothing is sent.
    """

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.stop = False
        self.broken_at: int | None = None
        self._device = device
        self._world_size = world_size
        self._pending: deque[tuple[int, SumOverRanks]] = deque()

    def post(self, step: int, *, stop: bool, number: torch.Tensor) -> None:
        """Send this rank's flags for `step`, without waiting for `number`, a 0-d tensor such as the loss."""
        wish = torch.full((), float(stop), device=self._device)
        flags = torch.stack([wish, (~number.detach().isfinite()).float()])
        self._pending.append((step, SumOverRanks(flags, self._world_size)))

    def update(self, *, wait: bool = False) -> None:
        """Read what was posted LAG steps ago; with `wait`, or once a stop is known, everything posted so far.

        Use `wait` where every rank halts anyway, such as before a checkpoint, which must not hold weights from after a
        non-finite loss.
        """
        while self._pending and (wait or self.stop or len(self._pending) > LAG):
            step, flags = self._pending.popleft()
            stop, broken = flags.result().tolist()
            self.stop = self.stop or stop > 0
            if broken and self.broken_at is None:
                self.broken_at = step
