"""Sums over ranks that reach the CPU without any step waiting for them."""

import torch


class SumOverRanks:
    """Starts adding `values` up over the ranks and copying the sum to the CPU; `result` waits for what is left of that.

    A CUDA tensor is reduced on its stream and copied into pinned memory behind an event, so that starting costs a few
    launches and no synchronisation. `values` must not change afterwards: pass a tensor made for this.
    """

    def __init__(self, values: torch.Tensor, world_size: int) -> None:
        self._values = values
        self._work = torch.distributed.all_reduce(values, async_op=True) if world_size > 1 else None
        self._copied: torch.cuda.Event | None = None
        if values.is_cuda:
            if self._work is not None:
                self._work.wait()  # orders the stream, not the CPU
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(
                values, non_blocking=True
            )
            self._copied = torch.cuda.Event()
            self._copied.record()

    def result(self) -> torch.Tensor:
        """The sum, on the CPU."""
        if self._copied is not None:
            self._copied.synchronize()
        elif self._work is not None:
            self._work.wait()
        return self._values
