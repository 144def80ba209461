"""Uploads what a run could not: its offline files in order, and the rest of an online run that was cut off.

`wandb sync` alone says 0 whatever happens, uploads nothing of a run whose first file holds no run yet, and leaves
online runs out (or, asked to take them, uploads their rows a second time).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from distcls.tracking.wandb import LEFT
from distcls.tracking.wandb_file import records

SYNC_SECONDS = 1800.0  # for one file


def sync(wandb_folder: Path, complete: Callable[[], None], note: Callable[[str], None]) -> list[str]:
    """Upload a run.

    Args:
        wandb_folder: `wandb/` of the run folder.
        complete: goes on with the run online and closes it, so that W&B gets the rows that it lacks.
        note: called with a line for each file.

    Returns:
        What went wrong, a line each.
    """
    problems: list[str] = []
    segments = _segments(wandb_folder)
    try:
        # first: files uploaded before it would hide what is missing
        if _cut_off([file for file in segments if not file.parent.name.startswith("offline-")]):
            complete()
            for file in segments:
                (file.parent / LEFT).unlink(missing_ok=True)
            note(f"{wandb_folder}: what an online run had left was added")
    except Exception as error:
        return [f"{wandb_folder}: {type(error).__name__}: {error}"]
    for file in segments:
        if not file.parent.name.startswith("offline-"):
            continue
        if file.with_name(f"{file.name}.synced").exists():
            note(f"{file.parent.name}: uploaded before")
            continue
        try:
            kinds = _kinds(file)
        except ValueError as error:
            problems.append(f"{error}: not uploaded; --rebuild uploads metrics.jsonl instead")
            continue
        if "run" not in kinds:
            note(f"{file.parent.name}: empty, moved to {set_aside(file.parent, 'quarantine')}")
        elif (failure := _upload(file)) is not None:
            problems.append(f"{file.parent.name}: {failure}")
            break  # the next one must not come before it
        else:
            note(f"{file.parent.name}: uploaded")
    return problems


def set_aside(segment: Path, where: str) -> Path:
    """Move a segment's folder to a sub-folder that nothing uploads from."""
    target = segment.parent / where / segment.name
    target.parent.mkdir(exist_ok=True)
    shutil.move(segment, target)
    return target


def _segments(wandb_folder: Path) -> list[Path]:
    """In the order in which they were written: their folders' names hold the time of their start."""
    return sorted(wandb_folder.glob("*run-*/*.wandb"), key=lambda file: file.parent.name.removeprefix("offline-"))


def _cut_off(online: Sequence[Path]) -> bool:
    """Whether the server may lack what online runs have logged: not uploaded to the end, or the last was killed."""
    left = any((file.parent / LEFT).exists() for file in online)
    return left or (bool(online) and "exit" not in _kinds(online[-1]))


def _kinds(file: Path) -> set[str]:
    return {record.WhichOneof("record_type") for record in records(file)}


def _upload(file: Path) -> str | None:
    """What went wrong: `wandb sync` marks a file as synced only after all of it has arrived."""
    command = [sys.executable, "-m", "wandb", "sync", str(file.parent)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SYNC_SECONDS, env=_environment(file), check=False
        )
    except subprocess.TimeoutExpired:
        return f"not uploaded within {SYNC_SECONDS:g} s"
    if file.with_name(f"{file.name}.synced").exists():
        return None
    return _reason(f"{done.stdout}\n{done.stderr}".splitlines())


def _environment(file: Path) -> dict[str, str]:
    cache = str(file.parents[1].resolve() / "cache")  # else under the home folder
    return {
        "WANDB_DATA_DIR": cache,
        "WANDB_CACHE_DIR": cache,
        **os.environ,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "false",
    }


def _reason(lines: Iterable[str]) -> str:
    said = [line.removeprefix("wandb: ").strip() for line in lines if line.strip()]
    return next((line for line in said if "error" in line.lower()), said[-1] if said else "wandb sync said nothing")
