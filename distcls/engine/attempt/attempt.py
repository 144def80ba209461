"""A running attempt: its heartbeat and watchdog, and the order in which everything is closed, however it ends."""

from types import TracebackType
from typing import Literal

import torch

from distcls.engine.attempt.ending import draw_report, end_lost, end_run, finish_save
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.ranks.heartbeat import Heartbeat
from distcls.engine.ranks.watchdog import RankLost, Watchdog, is_collective_error
from distcls.engine.records.run_folder import RunFolder, Start
from distcls.engine.stopping.preemption import StopRequest
from distcls.tracking.console import Console
from distcls.tracking.trackers import Trackers

LAST_SAVE_S = 60.0  # how long a failed run waits for a save that is under way
LOST_SAVE_S = 5.0  # the same after losing a rank: every save needs all ranks
REPORT_S = {"finished": 60.0, "failed": 60.0, "preempted": 5.0}  # a preempted job is killed soon


class Attempt:
    """One attempt at a run on one rank, as a context that begins once the run folder is open.

    Leaving the context closes everything in one fixed order. Errors pass through unchanged, except that an error of a
    collective becomes the RankLost that explains it; errors while closing never hide the original one.

    Args:
        folder: of the run.
        start: what opening the folder found.
        stop: receives requests to stop; rank 0 also looks for the stop file.
        timeout_s, warn_after_s: see Watchdog.
        rank, ranks: this process's rank, and the number of ranks.

    Attributes:
        trackers: without backends until rank 0 adds them.
        heart: this rank's heartbeat.
        snapshots: set once the job is built; closing waits for its saves.
        status, message: how the attempt ended and why, set by the block; "failed" until then and after an error.
    """

    def __init__(
        self,
        folder: RunFolder,
        start: Start,
        console: Console,
        stop: StopRequest,
        *,
        timeout_s: float,
        warn_after_s: float,
        rank: int,
        ranks: int,
    ) -> None:
        self.folder, self.start, self.console, self.stop = folder, start, console, stop
        self.rank, self.ranks = rank, ranks
        if rank == 0:
            stop.stop_file = folder.stop_file
        self.trackers = Trackers([], warn=console.warn)
        self.heart = Heartbeat(folder.path / "heartbeat", rank, ranks)
        self.snapshots: Snapshots | None = None
        self.status: Literal["finished", "preempted", "failed"] = "failed"
        self.message: str | None = None
        self._exit_code: int | None = None
        self._lost: RankLost | None = None
        self._watchdog = Watchdog(self.heart, timeout_s=timeout_s, warn_after_s=warn_after_s, record=self._end_lost)

    def watch(self) -> None:
        """Start this rank's heartbeat, and watch those of the others."""
        self.heart.start()
        self._watchdog.start()

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._fail(error)
        finally:
            self._close()

    def _fail(self, error: BaseException) -> None:
        self.status, self.message = "failed", f"{type(error).__name__}: {error}"
        self._exit_code = getattr(error, "exit_code", 1)
        if self.ranks > 1 and is_collective_error(error):
            self._lost = self._watchdog.explain(error)
            self.message = f"RankLost: {self._lost}"
            raise self._lost from error

    def _close(self) -> None:
        self._watchdog.stop()
        # A stop file outdoes a signal: it says, too, that nobody shall start the run again. One that comes later than
        # this look stays, and the next attempt stops.
        stop_file = self.stop.by_file if self.status != "failed" else None
        if self.status == "preempted":
            self.message = stop_file or self.message
        self.heart.close(self.message or self.status, bereft=self._lost is not None)
        if self.snapshots is not None:
            finish_save(self.snapshots, self.console, seconds=LAST_SAVE_S if self._lost is None else LOST_SAVE_S)
        # Trackers before run.json: a preempted job may be killed at any moment, and run.json must not claim too much.
        self.trackers.finish(self.status, self.message)
        if self._lost is not None and self.rank != 0:
            self._end_lost(self._lost)
        if self.rank == 0:
            end_run(self.folder, self.status, self.message, self._exit_code, self.console)
            if stop_file:
                self.stop.done()
            draw_report(self.folder, self.console, seconds=REPORT_S[self.status])
        if self.status != "failed" and self.ranks > 1:
            torch.distributed.barrier()  # the launcher kills all ranks as soon as one has left

    def _end_lost(self, error: RankLost) -> None:
        end_lost(self.folder, self.start.attempt, error, self.console)
