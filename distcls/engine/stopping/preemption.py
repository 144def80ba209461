"""Stop requests: signals, a stop file, the death of the launcher. They set a flag; the training loop saves and exits.

Imports no torch: `install()` runs before torch is imported, so that a signal in those seconds is not lost. Handlers do
not save: the main program may be inside a collective, and saving would deadlock. Making all ranks act on one rank's
flag is left to the training loop (see agreement.py).
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
ONE_PRESS_S = 1.0  # a worker receives one Ctrl-C twice: from the terminal and from its launcher
LOOK_EVERY_S = 1.0  # a stat on a network file system may take milliseconds
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = os.getppid()  # read as early as possible: the launcher may die while this process starts


class StopRequest:
    """Whether this process was asked to stop, and why.

    Repeated SIGTERM and SIGUSR2 have no further effect. The first SIGINT (Ctrl-C) is a request; another one more than
    a second later raises KeyboardInterrupt.

    Args:
        stop_file: e.g. `RUN/stop`; its existence is a request, too. For rank 0 only.
    """

    def __init__(self, stop_file: Path | None = None) -> None:
        self.stop_file = stop_file
        self._reason: str | None = None
        self._interrupted_at: float | None = None
        self._looked_at = -LOOK_EVERY_S
        self._previous: dict[signal.Signals, Any] = {}
        self._launched = False

    def install(self) -> None:
        """Install the signal handlers (main thread only). Under a launcher on Linux, its death also sends a SIGTERM.

        Without a launcher, the parent's death is no request: a run started with nohup outlives its shell. The kernel
        sends the signal when the *thread* that started this process ends; launchers start workers from their main
        thread.
        """
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        self._launched = _has_launcher()
        if self._launched:
            _signal_on_parent_death(signal.SIGTERM)
            if os.getppid() != PARENT:  # it died before the prctl call, so no signal will come
                self._reason = self._reason or _launcher_died()

    def uninstall(self) -> None:
        """Restore the previous handlers."""
        if self._launched:
            _signal_on_parent_death(0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        self._launched = False

    @property
    def requested(self) -> str | None:
        """The reason to stop, e.g. `SIGTERM`, or None; cheap enough to check at every step."""
        if self._reason is None and self.stop_file is not None and time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            self._reason = self.by_file
        return self._reason

    @property
    def by_file(self) -> str | None:
        """The stop file's request, checked now, even if a signal came first; None without a stop file."""
        with contextlib.suppress(OSError):  # a network file system that is temporarily unavailable
            if self.stop_file is not None and self.stop_file.exists():
                return f"stop file {self.stop_file}"
        return None

    def done(self) -> None:
        """Remove the stop file, whose request has been followed, so that the next attempt runs."""
        if self.stop_file is not None:
            with contextlib.suppress(OSError):  # if it stays, the next attempt stops, too
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
    """Whether torchrun or `accelerate launch` started this process, by its environment; srun kills its tasks itself."""
    return any(name == "LOCAL_RANK" or name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ)


def _launcher_died() -> str:
    return f"the launcher (process {PARENT}) died"


def _signal_on_parent_death(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
