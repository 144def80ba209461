"""Requests to stop: signals, a stop file, the death of the launcher. They set a flag; the training loop saves and
leaves.

Imports no torch: `install()` runs before torch is imported, so that a signal during those seconds is not lost.
Nothing is saved inside a handler, where a collective that the main program is in would deadlock. That all ranks act
on one rank's flag is the training loop's affair.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
ONE_PRESS_S = 1.0  # a terminal's Ctrl-C reaches a worker twice, once from the terminal and once from its launcher
LOOK_EVERY_S = 1.0  # a stat on a network file system may take milliseconds
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = os.getppid()  # as early as can be: the launcher may die while this process starts


class StopRequest:
    """Whether somebody wants this process to stop, and why.

    Args:
        stop_file: e.g. `RUN/stop`; that it exists is a request, too. Give it to rank 0 only.

    SIGTERM and SIGUSR2 may come as often as they like. The first SIGINT (Ctrl-C) is a request, another one more than
    a second later is a KeyboardInterrupt.
    """

    def __init__(self, stop_file: Path | None = None) -> None:
        self.stop_file = stop_file
        self._reason: str | None = None
        self._interrupted_at: float | None = None
        self._looked_at = -LOOK_EVERY_S
        self._previous: dict[signal.Signals, Any] = {}
        self._launched = False

    def install(self) -> None:
        """Put the handlers in (main thread only) and, under a launcher on Linux, make the launcher's death a SIGTERM.

        Without a launcher the parent's death is no request: a run started with nohup outlives its shell. The kernel
        sends the signal when the *thread* that started this process ends, and the launchers start workers from their
        main thread.
        """
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        self._launched = _has_launcher()
        if self._launched:
            _signal_on_parent_death(signal.SIGTERM)
            if os.getppid() != PARENT:  # it died before the kernel was told: no signal will come
                self._reason = self._reason or _launcher_died()

    def uninstall(self) -> None:
        """Put the previous handlers back."""
        if self._launched:
            _signal_on_parent_death(0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        self._launched = False

    @property
    def requested(self) -> str | None:
        """The reason to stop, e.g. `SIGTERM`, or None; cheap enough to ask at every step."""
        if self._reason is None and self.stop_file is not None and time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            self._reason = self.by_file
        return self._reason

    @property
    def by_file(self) -> str | None:
        """The stop file's request, looked for just now, also where a signal came first; None without one."""
        with contextlib.suppress(OSError):  # a network file system that does not answer just now
            if self.stop_file is not None and self.stop_file.exists():
                return f"stop file {self.stop_file}"
        return None

    def done(self) -> None:
        """Remove the stop file: the request has been followed, and the next attempt shall run."""
        if self.stop_file is not None:
            with contextlib.suppress(OSError):  # then the next attempt stops, too
                self.stop_file.unlink()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted_at is not None and now - self._interrupted_at > ONE_PRESS_S:
                raise KeyboardInterrupt
            self._interrupted_at = self._interrupted_at or now
        if self._reason is None:
            orphaned = number == signal.SIGTERM and self._launched and os.getppid() != PARENT
            self._reason = _launcher_died() if orphaned else signal.Signals(number).name


def _has_launcher() -> bool:
    """torchrun and `accelerate launch` leave their marks in the environment. (srun kills its tasks itself.)"""
    return any(name == "LOCAL_RANK" or name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ)


def _launcher_died() -> str:
    return f"the launcher (process {PARENT}) died"


def _signal_on_parent_death(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
