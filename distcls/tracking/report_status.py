"""The notice at the top of a report: the status of the run, and what to do about it."""

from datetime import datetime
from html import escape

from distcls.tracking.console import duration
from distcls.tracking.run_record import RunRecord

QUIET = 900  # seconds without a line after which a running run may be dead
ADVICE = "The same command goes on from its last checkpoint."


def notice(run: RunRecord, now: datetime) -> str:
    """HTML of one paragraph; empty for a finished run."""
    newest = run.attempts[-1] if run.attempts else {}
    message = f": {escape(newest['message'])}" if newest.get("message") else ""
    step = f"step {run.rows[-1]['step']:,}" if run.rows else "the beginning"
    if run.status == "failed":
        return _paragraph("bad", f"Crashed after {step}", f"<code>{escape(newest.get('message', 'no message'))}</code>")
    if run.status == "preempted":
        return _paragraph("wait", f"Preempted at {step}{message}", f"Nothing is lost. {ADVICE}")
    if run.status in ("killed", "cancelled"):
        return _paragraph("wait", f"{run.status.capitalize()} after {step}{message}", ADVICE)
    if run.status != "running":
        return ""
    silent = now.timestamp() - _last_sign(run)
    if silent > QUIET:
        text = f"Its last sign of life is {duration(silent)} old: it was killed, or it hangs. {ADVICE}"
        return _paragraph("wait", f"Says running, but is silent since {step}", text)
    text = f"To write this page anew: <code>distcls report {escape(str(run.folder))}</code>"
    return _paragraph("busy", f"Running{_remaining(run)}", text)


def _last_sign(run: RunRecord) -> float:
    """Time of its newest line or heartbeat (written by each rank every few seconds), in seconds since 1970."""
    beats = [file.stat().st_mtime for file in (run.folder / "heartbeat").glob("rank_*")]
    return max([line["time"] for line in (*run.rows, *run.events)] + beats, default=0.0)


def _remaining(run: RunRecord) -> str:
    """Estimated from the working time of the epochs so far."""
    if not (run.total_epochs and run.rows and (done := run.rows[-1]["epoch"])):
        return ""
    left = run.rows[-1]["elapsed"] / done * max(run.total_epochs - done, 0)
    return f": epoch {done:.4g} of {run.total_epochs:g}, about {duration(left)} to go"


def _paragraph(tone: str, title: str, text: str) -> str:
    return f'<p class="notice {tone}"><b>{title}.</b> {text}</p>'
