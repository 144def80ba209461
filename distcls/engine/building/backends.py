"""Builds the trackers of the recipe's tracking block; on rank 0."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distcls.engine.records.run_folder import Start
from distcls.errors import ArgumentError, UserError
from distcls.recipe.schema import Recipe
from distcls.registry import TRACKERS
from distcls.tracking.console import Console
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.labels import run_labels
from distcls.tracking.live_report import LiveReport
from distcls.tracking.redact import redact
from distcls.tracking.tracker import Tracker
from distcls.tracking.wandb import WandbTracker
from distcls.tracking.wandb_sync import set_aside


def make_backends(
    recipe: Recipe,
    folder: Path,
    start: Start,
    fingerprints: Mapping[str, str],
    environments: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> list[Any]:
    """The run's own metrics log first, then W&B, then those of plug-ins. One that cannot start is only warned about.

    Args:
        folder: of the run.
        fingerprints: of the data.
        environments: of all attempts, see environment.record.

    Raises:
        UserError: W&B cannot start although it is required, or was asked for without a key.
    """
    own, first = environments[str(start.attempt)], next(iter(environments.values()))
    config = redact({**recipe.resolved(), "fingerprints": fingerprints, "environment": own})
    backends: list[Any] = [MetricsLog(folder, start.attempt, warn=console.warn), LiveReport(folder)]
    if (wandb := _wandb(recipe, folder, start, config, first, console)) is not None:
        backends.append(wandb)
    for block in recipe.tracking.backends:
        try:
            given = {"run_folder": folder, "run_id": start.run_id, "config": config}
            backends.append(TRACKERS.build(block, **given))
        except UserError:
            raise
        except Exception as error:
            console.warn(f"{block['type']} did not start and is off for this run: {type(error).__name__}: {error}")
    return backends


def _wandb(
    recipe: Recipe, folder: Path, start: Start, config: dict[str, Any], first: Mapping[str, Any], console: Console
) -> Tracker | None:
    tracking = recipe.tracking
    if start.copied_from is not None:  # the rows of the original's W&B run belong to this one's as well
        for file in (folder / "wandb").glob("*run-*/*.wandb"):
            set_aside(file.parent, "of_the_original")
    if tracking.mode == "disabled":
        if tracking.required:
            raise ArgumentError("tracking.required", "got true with tracking.mode: disabled, expected another mode")
        return None
    try:
        return WandbTracker(
            folder,
            run_id=start.run_id,
            mode=tracking.mode,
            required=tracking.required,
            config=config,
            tables=tracking.tables,
            artifact=None if tracking.artifacts == "none" else tracking.artifacts,
            code=tracking.code,
            anew=start.copied_from is not None,
            note=console.note,
            **run_labels(recipe.name, tracking.model_dump(), first.get("slurm", {})),
        )
    except UserError:
        raise
    except Exception as error:  # a broken installation, a full disk
        if tracking.required:
            raise ArgumentError("tracking.required", f"W&B did not start: {type(error).__name__}: {error}") from error
        console.warn(f"WandbTracker did not start and is off for this run: {type(error).__name__}: {error}")
        return None
