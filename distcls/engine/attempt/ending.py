"""The last steps of an attempt. Their own errors become warnings, so that they cannot hide what ended the run."""

from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.ranks.watchdog import RankLost
from distcls.engine.records.run_folder import RunFolder, Status
from distcls.errors import UserError
from distcls.tracking.bounded import within
from distcls.tracking.console import Console
from distcls.tracking.report import write_report


def finish_save(snapshots: Snapshots, console: Console, seconds: float) -> None:
    """Wait for a checkpoint that is under way: a run that ends in an error still gets it."""
    try:
        snapshots.settle(seconds=seconds)
    except Exception as error:
        console.warn(f"a checkpoint was not completed: {type(error).__name__}: {error}")


def end_run(folder: RunFolder, status: Status, message: str | None, exit_code: int | None, console: Console) -> None:
    """Write the end of the attempt into run.json, and unlock the run folder."""
    try:
        folder.end(status, message, exit_code)
    except OSError as error:  # a full disk must not hide what ended the run
        console.warn(f"{folder.path}/run.json still says running: {error.strerror}")
    finally:
        folder.close()


def end_lost(folder: RunFolder, attempt: int, error: RankLost, console: Console) -> None:
    """Record a lost rank in run.json, on the lowest rank alive; bounded in time, for the disk may be what failed."""
    if error.speaker:
        try:
            within(30, lambda: folder.end_for_rank_zero(attempt, f"RankLost: {error}"))
        except (OSError, UserError) as failure:
            console.warn(f"{folder.path}/run.json still says running: {failure}")


def draw_report(folder: RunFolder, console: Console, seconds: float) -> None:
    """Draw `report.html`; if that fails or takes too long, the run does not."""
    try:
        within(seconds, lambda: write_report([folder.path], folder.path / "report.html"))
    except Exception as error:
        console.warn(f"{folder.path}/report.html was not drawn: {type(error).__name__}: {error}")


def complete_report(folder: RunFolder, console: Console) -> None:
    """Draw the report of a run that was killed after it had finished but before its report was drawn."""
    report, run = folder.path / "report.html", folder.path / "run.json"
    if not report.exists() or report.stat().st_mtime < run.stat().st_mtime:
        draw_report(folder, console, seconds=60)
