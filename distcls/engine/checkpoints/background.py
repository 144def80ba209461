"""One piece of work at a time beside the training, and the copy of the state that it works on."""

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Background(Generic[Result]):
    """A thread for one piece of work; what came of it waits to be collected.

    The thread is a daemon: a save that hangs because another rank does must not keep the process alive.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self._errors: list[BaseException] = []

    @property
    def idle(self) -> bool:
        """Nothing under way and nothing to collect."""
        return self._thread is None

    @property
    def done(self) -> bool:
        """There is something to collect, without waiting."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, work: Callable[[], Result]) -> None:
        """Begin `work` in a thread of its own."""
        assert self.idle, "collect the work before this first"

        def run() -> None:
            try:
                self._results.append(work())
            except BaseException as error:
                self._errors.append(error)

        self._thread = threading.Thread(target=run, name="distcls-save", daemon=True)
        self._thread.start()

    def end_of_work(self) -> Callable[[], None]:
        """Waits, from whatever thread, until the work that is under way now has ended; it is still to be collected."""
        return self._thread.join if self._thread is not None else lambda: None

    def collect(self, seconds: float | None = None) -> Result:
        """Wait for the work and give its result, or raise what it raised. Signals are heard while waiting.

        Raises:
            TimeoutError: it is not done after `seconds`; it goes on.
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
    """Every tensor copied to CPU memory; training may change the originals as soon as this returns.

    Strides stay, so that copying is what it costs least: one pass over the memory. From a GPU the copies go into pinned
    memory side by side, and are waited for once; torch keeps that memory for the next time.
    """
    copies = {stem: {name: _copy(tensor) for name, tensor in share.items()} for stem, share in files.items()}
    if any(tensor.is_cuda for share in files.values() for tensor in share.values()):
        torch.cuda.synchronize()
    return copies


def _copy(tensor: Tensor) -> Tensor:
    copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
    return copy.copy_(tensor.detach(), non_blocking=True)
