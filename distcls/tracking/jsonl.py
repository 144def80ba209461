"""`metrics.jsonl` and `events.jsonl`: the run's own record in strict JSON, intact after any kill."""

import functools
import json
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from distcls.tracking.tracker import Row, Status, kind_of

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
BLOCK = 65536  # bytes read at a time, from the end, to find the last line
# JSON cannot express these; float() and JavaScript's Number() can read the strings.
NON_FINITE = ("NaN", "Infinity", "-Infinity")


class MetricsLog:
    """Appends rows to `metrics.jsonl` and events to `events.jsonl`, each line in one write.

    So a killed process loses at most the line that it was writing, and a machine that fails what came after `sync`. On
    a full disk rows wait in memory until there is space again.

    Args:
        folder: the run folder.
        attempt: number of this start of the run, from 1, written into every line. A later attempt's row replaces an
            earlier one's.
        warn: called with one line of text when a file cannot be written.
        clock: seconds since 1970, written as `time`.
    """

    def __init__(
        self,
        folder: Path,
        attempt: int = 1,
        warn: Callable[[str], None] = warnings.warn,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.attempt = attempt
        self.clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = _Lines(folder / METRICS, warn)
        self._events = _Lines(folder / EVENTS, warn)

    def log(self, row: Row) -> None:
        counters = {key: row[key] for key in ("step", "epoch", "samples")}
        self._metrics.append({**counters, "attempt": self.attempt, "time": round(self.clock(), 3), **row})

    def event(self, kind: str, **fields: Any) -> None:
        self._events.append({"time": round(self.clock(), 3), "attempt": self.attempt, "kind": kind, **fields})

    def sync(self) -> None:
        """Wait until both files are on the disk. Called before a checkpoint is committed, which must not be ahead."""
        self._metrics.sync()
        self._events.sync()

    def finish(self, status: Status, message: str | None = None) -> None:
        """Write the end of this attempt as an event, and close both files."""
        self.event(status, **({"message": message} if message else {}))
        self._metrics.close()
        self._events.close()


def read_rows(folder: Path, *, repeated: bool = False) -> list[dict[str, Any]]:
    """The rows of a run sorted by step, training before evaluation; for each step and kind, those of the last attempt.

    Rows beyond the checkpoint from which a later attempt resumed are left out, because that attempt repeats the steps.
    May be called while the run writes. Non-finite metrics are returned as floats.

    Args:
        repeated: keep such rows if the later attempt repeats their numbers, as its recipe did not change.
    """
    resumed = [
        (event["attempt"], event["step"])
        for event in read_events(folder)
        if event["kind"] == "resumed" and (event.get("allowed") or not repeated)
    ]

    @functools.cache
    def last_step(attempt: int) -> float:
        return min((step for later, step in resumed if later > attempt), default=math.inf)

    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for row in read_lines(folder / METRICS):
        key = row["step"], kind_of(row)
        if row["step"] <= last_step(row["attempt"]) and (key not in rows or row["attempt"] >= rows[key]["attempt"]):
            rows[key] = {name: float(value) if value in NON_FINITE else value for name, value in row.items()}
    return [rows[key] for key in sorted(rows)]


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run in order."""
    return list(read_lines(folder / EVENTS))


def strict(value: Any) -> Any:
    """`value` as strict JSON: NaN and infinities as strings, 0-d arrays and tensors as numbers, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return strict(value.item()) if hasattr(value, "item") else str(value)


class _Lines:
    """One append-only file of JSON lines."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self.warn = warn
        self._waiting = b""
        self._warned = False
        self._lock = threading.Lock()
        self._file = FileIO(path, "a+")
        _trim_torn_line(self._file)

    def append(self, value: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting += json.dumps(strict(value), allow_nan=False, ensure_ascii=False).encode() + b"\n"
        self._write()

    def sync(self) -> None:
        """May be called from another thread, as checkpoints do."""
        self._write(through=True)

    def close(self) -> None:
        self.sync()
        self._file.close()
        if lost := self._waiting.count(b"\n"):
            self.warn(f"{self.path}: its last {lost} lines are lost, they could not be written until the end")

    def _write(self, through: bool = False) -> None:
        """Write what is waiting, `through` to the disk. If that fails it keeps waiting, with a warning."""
        try:
            with self._lock:
                # If a full disk cut a write short, the next write continues in the middle of the line.
                while self._waiting:
                    self._waiting = self._waiting[os.write(self._file.fileno(), self._waiting) :]
            if through:
                os.fsync(self._file.fileno())
            self._warned = False
        except OSError as error:
            if not self._warned:
                self.warn(f"{self.path}: {error.strerror}: rows wait in memory until it can be written")
            self._warned = True


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines, without an incomplete last line (torn, or being written)."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                yield value
            else:
                warnings.warn(f"{path}:{number}: not a JSON object, left out: {line[:60]!r}", stacklevel=2)


def _trim_torn_line(file: FileIO) -> None:
    """Cut off an incomplete last line, left by a kill in the middle of a write."""
    size = file.seek(0, os.SEEK_END)
    end, tail = size, b""
    while end and b"\n" not in tail:
        start = max(0, end - BLOCK)
        file.seek(start)
        tail, end = file.read(end - start), start
    file.truncate(end + tail.rfind(b"\n") + 1)
