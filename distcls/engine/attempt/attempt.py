"""An attempt under way: watched while it lives, and closed in one order whatever ends it."""

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

LAST_SAVE_S = 60.0  # how long a run that failed waits for the save that it had begun
LOST_SAVE_S = 5.0  # the same where another rank is gone, which takes part in every save
REPORT_S = {"finished": 60.0, "failed": 60.0, "preempted": 5.0}  # the grace period is short


class Attempt:
    """One attempt at a run, on one rank, from the moment that the folder is open: a context, left in one way only.

    An error leaves it as it is; one of a collective as the RankLost that it means. Nothing that closing does hides it.

    Args:
        folder: the run's.
        start: this attempt in it.
        console: of this rank.
        stop: where requests to stop arrive; rank 0 looks for the stop file, too.
        timeout_s, warn_after_s: see Watchdog.
        rank, ranks: of this process, and how many there are.

    Attributes:
        trackers: nobody yet.
        heart: this rank's sign of life.
        snapshots: what has saves under way; set as soon as there is one.
        status, message: how it ended, and why; set by the block, failed until then and after an error.
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
        """From here on this rank gives signs of life, and notices when the others give none."""
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
        # Trackers first: a preempted job is killed soon, and what run.json says must come last.
        self.trackers.finish(self.status, self.message)
        if self._lost is not None and self.rank != 0:
            self._end_lost(self._lost)
        if self.rank == 0:
            end_run(self.folder, self.status, self.message, self._exit_code, self.console)
            if stop_file:
                self.stop.done()
            draw_report(self.folder, self.console, seconds=REPORT_S[self.status])
        if self.status != "failed" and self.ranks > 1:
            torch.distributed.barrier()  # a launcher kills all ranks as soon as the first has left

    def _end_lost(self, error: RankLost) -> None:
        end_lost(self.folder, self.start.attempt, error, self.console)
