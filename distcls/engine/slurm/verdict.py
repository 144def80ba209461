"""Decides from recorded facts whether a SLURM job that has ended is requeued, and why. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distcls.engine.stopping.outcome import NO_VALID_CHECKPOINT, PREEMPTED

STALLED = 2  # consecutive attempts without a new checkpoint: one may have been preempted too soon, two are a loop

Fate = Literal["free", "cancelled", "requeued", "time limit"]


@dataclass(frozen=True)
class SlurmJob:
    """A job as its batch script sees it once its step has ended.

    Attributes:
        number: SLURM_JOB_ID.
        restarts: SLURM_RESTART_COUNT, 0 at first.
        fate: what SLURM has decided: "free" (nothing, so the script decides), "cancelled" (scancel), "requeued" (it
            will start again after `scontrol requeue`, preemption without grace time or a node failure) or "time limit".
    """

    number: str
    restarts: int
    fate: Fate

    @classmethod
    def parse(cls, number: str, restarts: int, shown: str) -> "SlurmJob":
        """Parse `shown`, a line of `scontrol --oneliner show job`; empty, for "free", if there is no scontrol.

        Measured with SLURM 22.05 while the job was still completing: after scancel, Reason is None and Restarts is
        unchanged; after a requeue, Restarts has already been incremented.
        """
        said = dict(re.findall(r"(\w+)=(\S*)", shown))
        fate: Fate = "cancelled"
        if said.get("JobState", "RUNNING") in ("RUNNING", "SUSPENDED"):
            fate = "free"
        elif int(said.get("Restarts", restarts)) > restarts:
            fate = "requeued"
        elif said.get("Reason") == "TimeLimit" or said["JobState"] == "TIMEOUT":
            fate = "time limit"
        return cls(number, restarts, fate)


@dataclass(frozen=True)
class Verdict:
    """Whether to `requeue`, the `reason` for the log, and the `status` with which the batch script exits if not."""

    requeue: bool
    reason: str
    status: int = 0

    @property
    def exit_code(self) -> int:
        return PREEMPTED if self.requeue else self.status


def judge(
    run: Mapping[str, Any] | None, newest: int | None, job: SlurmJob, *, max_restarts: int, max_crashes: int
) -> Verdict:
    """Requeue a job that can make progress, but not one that would fail or stall again.

    Args:
        run: the content of run.json, or None if there is none.
        newest: the step of the newest checkpoint, None if there is none.
        job: the job that has just ended.
        max_restarts: how often this job may restart, for any reason.
        max_crashes: how often this job may restart after a crash, even if it made progress each time.
    """
    if run is not None and run["status"] == "finished":
        return Verdict(False, "the run is finished")
    if job.fate == "requeued":
        return Verdict(False, "SLURM starts this job again by itself")
    if job.fate == "cancelled":
        return Verdict(False, "cancelled: it is not started again. To go on: the same sbatch")
    mine = [attempt for attempt in (run or {}).get("attempts", []) if attempt.get("job") == job.number]
    missed = job.restarts - mine[-1]["restart"] if mine else STALLED
    verdict = _not_begun(missed) if missed else _of_attempts(mine, newest, max_crashes)
    if verdict.requeue and job.restarts >= max_restarts:
        return Verdict(False, f"{verdict.reason}; it has started again {job.restarts} times, the most allowed", 1)
    return verdict


def _not_begun(missed: int) -> Verdict:
    """`missed`: consecutive starts of the job without an attempt in run.json; STALLED if it never had one."""
    what = "the training did not begin, see the error above"
    if missed < STALLED:  # a node that was not ready is as likely as a mistake in the recipe
        return Verdict(True, f"{what}; it did before, so once more")
    return Verdict(False, f"{what}: it would meet it again", 1)


def _of_attempts(mine: Sequence[Mapping[str, Any]], newest: int | None, max_crashes: int) -> Verdict:
    last = mine[-1]
    at = "before the first checkpoint" if newest is None else f"at step {newest}"
    if last["status"] != "preempted":
        return _after_crash(mine, newest, at, max_crashes)
    if str(last.get("message", "")).startswith("stop file"):
        return Verdict(False, f"stopped {at} by the {last['message']}: it is not started again")
    return _unless_stalled(mine, newest, f"preempted ({last.get('message', '?')}) {at}")


def _unless_stalled(mine: Sequence[Mapping[str, Any]], newest: int | None, what: str) -> Verdict:
    last = list(mine)[-STALLED:]
    if len(last) == STALLED and all(attempt["from_step"] == newest for attempt in last):
        return Verdict(
            False,
            f"{what}; {STALLED} attempts in a row came no further: "
            "give the job more time (--time), or the warning less (--signal-before)",
            1,
        )
    return Verdict(True, what)


def _after_crash(mine: Sequence[Mapping[str, Any]], newest: int | None, at: str, max_crashes: int) -> Verdict:
    last = mine[-1]
    if last.get("exit_code") == NO_VALID_CHECKPOINT:
        return Verdict(False, "no valid checkpoint is left, see the error above", NO_VALID_CHECKPOINT)
    what = "crashed" if last["status"] == "failed" else "was killed"
    if newest is None or newest == last["from_step"]:
        return Verdict(False, f"{what} {at}, without a new checkpoint: it would do so again", 1)
    crashes = sum(attempt["status"] != "preempted" for attempt in mine)
    if crashes > max_crashes:
        return Verdict(False, f"{what} {at}; this job has crashed {crashes} times, {max_crashes} are allowed", 1)
    return Verdict(True, f"{what} {at}, {newest - (last['from_step'] or 0)} steps further than it began")
