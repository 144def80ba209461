"""Passes every call to all backends, none of which can stop or block a run."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from distcls.tracking.bounded import Overdue, within
from distcls.tracking.tracker import Row, Status, Tracker

# Seconds that a backend may take to close: uploads are long, but the time before SIGKILL is short (SLURM: 30 s).
FINISH_SECONDS: Mapping[Status, float] = {"finished": 150.0, "preempted": 10.0, "failed": 30.0}


def _print_warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


class Trackers:
    """Passes every call to each backend in order. A backend that raises is dropped, with one warning.

    Args:
        backends: in order of the calls; `MetricsLog`, the source of truth, comes first. Only rank 0 has any.
        warn: called with one line of text.
        finish_seconds: time limit of each backend's `finish`, by status.
    """

    def __init__(
        self,
        backends: Iterable[Tracker] = (),
        warn: Callable[[str], None] = _print_warning,
        finish_seconds: Mapping[Status, float] = FINISH_SECONDS,
    ) -> None:
        self.backends = list(backends)
        self.warn = warn
        self.finish_seconds = finish_seconds

    def log(self, row: Row) -> None:
        self._each(lambda backend: backend.log(row))

    def event(self, kind: str, **fields: Any) -> None:
        self._each(lambda backend: backend.event(kind, **fields))

    def predictions(self, row: Row, content: Mapping[str, Any]) -> None:
        """Pass the predictions of the last evaluation to the backends that can show them.

        Args:
            row: `step`, `epoch`, `samples` of the evaluation.
            content: of `val_predictions.json`; the pictures are in the run folder.
        """
        self._each(lambda backend: getattr(backend, "predictions", lambda row, content: None)(row, content))

    def sync(self) -> None:
        """Wait until the files of all backends are on the disk."""
        self._each(lambda backend: getattr(backend, "sync", lambda: None)())

    def finish(self, status: Status, message: str | None = None) -> None:
        """Close every backend within its time limit; a second call does nothing."""
        backends, self.backends = self.backends, []
        for backend in backends:
            self._finish(backend, status, message)

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for backend in list(self.backends):
            try:
                call(backend)
            except Exception as error:
                self.backends.remove(backend)
                self.warn(f"{_name(backend)} failed and is off for the rest of this run: {_text(error)}")

    def _finish(self, backend: Tracker, status: Status, message: str | None) -> None:
        seconds = self.finish_seconds[status]
        try:
            within(seconds, lambda: backend.finish(status, message))
        except Overdue:
            self.warn(f"{_name(backend)} did not close within {seconds:g} s and was left behind")
        except Exception as error:
            self.warn(f"{_name(backend)} failed while closing: {_text(error)}")


def _name(backend: Tracker) -> str:
    return type(backend).__name__


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
