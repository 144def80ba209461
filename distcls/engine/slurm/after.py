"""`python -m distcls.engine.slurm.after RECIPE [KEY=VALUE ...]`: called by a batch script once its step has ended.

Says in one line whether the job shall start again, and why; leaves with 75 if so. Notes in run.json what an attempt
that was killed or cancelled could not. Takes a fraction of a second: SLURM's KillWait may be running.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from distcls.engine.records.run_folder import RunFolder
from distcls.engine.slurm.verdict import SlurmJob, Verdict, judge
from distcls.errors import UserError, os_error_text
from distcls.recipe.source import read


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """The exit status: 75 to requeue; 0 if finished, cancelled, stopped, or requeued by SLURM; 76 or 1 if failed."""
    parser = argparse.ArgumentParser(prog="python -m distcls.engine.slurm.after", description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--job", default="", help="what `scontrol --oneliner show job` says of it")
    parser.add_argument("--max-restarts", type=int, default=100)
    parser.add_argument("--max-crashes", type=int, default=3)
    given = parser.parse_args(arguments)
    restarts = int(environment.get("SLURM_RESTART_COUNT") or 0)
    job = SlurmJob.parse(environment["SLURM_JOB_ID"], restarts, given.job)
    try:
        tree = read(given.recipe, given.overrides).tree
        name = tree.get("name") or given.recipe.stem
        folder = RunFolder(Path(tree.get("output_dir") or f"runs/{name}"))
        run = folder.read()
        verdict = judge(run, folder.newest_step(), job, max_restarts=given.max_restarts, max_crashes=given.max_crashes)
        if run is not None:
            with contextlib.suppress(OSError):  # a full disk does not keep the job from starting again
                _note(folder, run["status"], job)
    except UserError as error:
        verdict = Verdict(False, f"it is not started again: {error}", 1)
    except OSError as error:
        verdict = Verdict(False, f"it is not started again: {os_error_text(error)}", 1)
    what = "requeue: " if verdict.requeue else ""
    print(f"slurm job {job.number}, restart {job.restarts}: {what}{verdict.reason}", file=sys.stderr, flush=True)
    return verdict.exit_code


def _note(folder: RunFolder, status: str, job: SlurmJob) -> None:
    if job.fate == "cancelled" and status in ("running", "preempted"):
        folder.note_end("cancelled", f"SLURM job {job.number} was cancelled")
    elif status == "running":
        folder.note_end("killed", f"SLURM job {job.number} ended without a word")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
