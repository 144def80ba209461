"""Sums over ranks that are copied to the CPU asynchronously, so that no step waits for them."""

import torch


class SumOverRanks:
    """Starts an all-reduce of `values` and the copy of the sum to the CPU; `result` waits for both to complete.

    A CUDA tensor is reduced on its stream and copied into pinned memory, followed by an event, so that starting costs a
    few launches and no synchronisation. `values` is reduced in place: pass a tensor that nothing else uses.
    """

    def __init__(self, values: torch.Tensor, world_size: int) -> None:
        self._values = values
        self._work = torch.distributed.all_reduce(values, async_op=True) if world_size > 1 else None
        self._copied: torch.cuda.Event | None = None
        if values.is_cuda:
            if self._work is not None:
                self._work.wait()  # blocks the stream, not the CPU
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
