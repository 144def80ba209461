"""What an attempt leaves behind on its way out; nothing here may hide what ended it."""

from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.ranks.watchdog import RankLost
from distcls.engine.records.run_folder import RunFolder, Status
from distcls.errors import UserError
from distcls.tracking.bounded import within
from distcls.tracking.console import Console
from distcls.tracking.report import write_report


def finish_save(snapshots: Snapshots, console: Console, seconds: float) -> None:
    """A run that ends in an error still gets the checkpoint that it had begun, unless another rank is in its way."""
    try:
        snapshots.settle(seconds=seconds)
    except Exception as error:
        console.warn(f"a checkpoint was not completed: {type(error).__name__}: {error}")


def end_run(folder: RunFolder, status: Status, message: str | None, exit_code: int | None, console: Console) -> None:
    """Write how the attempt ended into run.json, and give the folder free."""
    try:
        folder.end(status, message, exit_code)
    except OSError as error:  # a full disk must not hide what ended the run
        console.warn(f"{folder.path}/run.json still says running: {error.strerror}")
    finally:
        folder.close()


def end_lost(folder: RunFolder, attempt: int, error: RankLost, console: Console) -> None:
    """Only the lowest rank that lives writes it down; the disk may be what was lost."""
    if error.speaker:
        try:
            within(30, lambda: folder.end_for_rank_zero(attempt, f"RankLost: {error}"))
        except (OSError, UserError) as failure:
            console.warn(f"{folder.path}/run.json still says running: {failure}")


def draw_report(folder: RunFolder, console: Console, seconds: float) -> None:
    """`report.html`; a run that trained well does not fail for its picture, nor wait for it."""
    try:
        within(seconds, lambda: write_report([folder.path], folder.path / "report.html"))
    except Exception as error:
        console.warn(f"{folder.path}/report.html was not drawn: {type(error).__name__}: {error}")


def complete_report(folder: RunFolder, console: Console) -> None:
    """Draw the report of a finished run that was killed between its last word and its report."""
    report, last_word = folder.path / "report.html", folder.path / "run.json"
    if not report.exists() or report.stat().st_mtime < last_word.stat().st_mtime:
        draw_report(folder, console, seconds=60)
