"""What all ranks must act on at the same step: a stop request on any of them, and numbers that are no longer finite.

One small reduction a step, never waited for in the step that posts it: its result is read a fixed number of steps
later, so that every rank acts at the same step and no step waits for the network or for the GPU.
"""

from collections import deque

import torch

from distcls.engine.ranks.reduction import SumOverRanks

LAG = 3  # steps between posting and acting: well under a second of most models, and grace periods last tens of them


class Agreement:
    """Post flags every step; `update` learns what the ranks posted LAG steps ago.

    Attributes:
        stop: some rank was asked to stop.
        broken_at: the first step with a number that was not finite on some rank, or None.

    Both are the same on all ranks after each `update`.

    Args:
        device: where the losses are.
        world_size: number of ranks; with one, nothing is sent.
    """

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.stop = False
        self.broken_at: int | None = None
        self._device = device
        self._world_size = world_size
        self._pending: deque[tuple[int, SumOverRanks]] = deque()

    def post(self, step: int, *, stop: bool, number: torch.Tensor) -> None:
        """Send this rank's flags for `step`. `number`, a loss for example, is a 0-d tensor and is not waited for."""
        wish = torch.full((), float(stop), device=self._device)
        flags = torch.stack([wish, (~number.detach().isfinite()).float()])
        self._pending.append((step, SumOverRanks(flags, self._world_size)))

    def update(self, *, wait: bool = False) -> None:
        """Take in what was posted LAG steps ago; with `wait`, or once a stop is known, everything posted so far.

        Waiting is for steps at which every rank halts anyway: a checkpoint must not hold weights from beyond a
        non-finite loss.
        """
        while self._pending and (wait or self.stop or len(self._pending) > LAG):
            step, flags = self._pending.popleft()
            stop, broken = flags.result().tolist()
            self.stop = self.stop or stop > 0
            if broken and self.broken_at is None:
                self.broken_at = step
