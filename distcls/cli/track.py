"""`distcls track ...`: a run's numbers and W&B."""

import importlib.util
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError
from distcls.tracking.run_record import json_of
from distcls.tracking.tracker import Status

app = typer.Typer(no_args_is_help=True, help="Upload runs to Weights & Biases.")
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")]


@app.command()
def sync(
    runs: Runs,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Upload metrics.jsonl as a new W&B run, if W&B's own files are damaged or missing."
        ),
    ] = False,
) -> None:
    """Upload offline runs, and what online runs could not upload. Exit status 1 if anything is left."""
    from distcls.engine.records.run_lock import RunLock
    from distcls.tracking.wandb_sync import set_aside
    from distcls.tracking.wandb_sync import sync as upload

    require_server()
    problems: list[str] = []
    for run in runs:
        if not (run / "run.json").exists():
            problems.append(f"{run} is not a run folder: it has no run.json")
            continue
        lock = RunLock(run)
        try:
            lock.take(0)  # a run that works uploads by itself
            if rebuild:
                old = [file.parent for file in (run / "wandb").glob("*run-*/*.wandb")]
                reopened(run, anew=True)
                for segment in old:
                    set_aside(segment, "replaced")
                print(f"{run}: rebuilt from metrics.jsonl; what W&B had of it before is another run")
            else:
                problems += upload(run / "wandb", lambda run=run: reopened(run), print)  # type: ignore[misc]
        except Exception as error:
            problems.append(str(error) if isinstance(error, UserError) else f"{run}: {type(error).__name__}: {error}")
        finally:
            lock.release()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)


@app.command()
def workspace(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, for its W&B project and entity.")],
    name: Annotated[str, typer.Option(help="Name of the workspace.")] = "distcls",
) -> None:
    """Create a W&B workspace with panels for all metrics, and print its address."""
    if not (run / "run.json").exists():
        raise UserError(f"{run} is not a run folder: it has no run.json")
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("distcls track workspace needs the package wandb-workspaces: pip install wandb-workspaces")
    require_server()
    import wandb

    from distcls.tracking.wandb_workspace import workspace as made

    tracking = json_of(run / "run.json")["recipe"]["tracking"]
    entity: str = tracking["entity"] or wandb.Api().default_entity or ""
    print(made(entity, tracking["project"], name).save().url)


def require_server() -> None:
    """Find out within seconds that W&B is out of reach."""
    from distcls.tracking.wandb_access import out_of_reach

    os.environ.setdefault("WANDB_SILENT", "true")  # wandb's own lines come when it looks for a key
    if why := out_of_reach():
        raise UserError(f"W&B cannot be reached: {why}. Run `wandb login`, or set WANDB_API_KEY and WANDB_BASE_URL")


def reopened(run: Path, anew: bool = False) -> None:
    """Go on with a run on W&B, so that it gets the rows that it lacks, and close it as it ended."""
    from distcls.tracking.labels import run_labels
    from distcls.tracking.wandb import WandbTracker

    state = json_of(run / "run.json")
    status: Status = state["status"] if state["status"] in ("finished", "preempted") else "failed"
    run_id = f"{state['run_id']}-{secrets.token_hex(2)}" if anew else state["run_id"]
    recipe, environments = state["recipe"], run / "environment.json"
    first = next(iter(json_of(environments).values())) if environments.exists() else {}
    code = recipe["tracking"].get("code", True)  # the key is younger than some runs
    labels = run_labels(recipe["name"], recipe["tracking"], first.get("slurm", {}))
    tracker = WandbTracker(run, run_id, mode="online", required=True, anew=anew, config=recipe, code=code, **labels)
    tracker.finish(status, state["attempts"][-1].get("message"))
