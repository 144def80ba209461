"""Runs one task at a time in the background of training, on a copy of the state."""

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Background(Generic[Result]):
    """One task in a thread; its result waits to be collected.

    The thread is a daemon, so that a save that hangs with another rank does not keep the process alive.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self._errors: list[BaseException] = []

    @property
    def idle(self) -> bool:
        """Nothing is running, and there is nothing to collect."""
        return self._thread is None

    @property
    def done(self) -> bool:
        """A result can be collected without waiting."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, work: Callable[[], Result]) -> None:
        """Start `work` in a new thread."""
        assert self.idle, "collect the work before this first"

        def run() -> None:
            try:
                self._results.append(work())
            except BaseException as error:
                self._errors.append(error)

        self._thread = threading.Thread(target=run, name="distcls-save", daemon=True)
        self._thread.start()

    def end_of_work(self) -> Callable[[], None]:
        """A function that waits, in any thread, for the task running now; its result still has to be collected."""
        return self._thread.join if self._thread is not None else lambda: None

    def collect(self, seconds: float | None = None) -> Result:
        """Wait for the task; return its result or raise its error. Signals are handled while waiting.

        Raises:
            TimeoutError: it takes longer than `seconds`; it continues to run.
        """
        assert self._thread is not None, "nothing was started"
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"not done within {seconds:g} s")
        self._thread = None
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()


def cpu_copies(files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Copy every tensor to CPU memory; training may change the originals as soon as this returns.

    Strides are kept, because copying memory in order is the fastest. Copies from a GPU run concurrently into pinned
    memory, which torch keeps for the next time, and are waited for once.
    """
    copies = {stem: {name: _copy(tensor) for name, tensor in share.items()} for stem, share in files.items()}
    if any(tensor.is_cuda for share in files.values() for tensor in share.values()):
        torch.cuda.synchronize()
    return copies


def _copy(tensor: Tensor) -> Tensor:
    copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
    return copy.copy_(tensor.detach(), non_blocking=True)
