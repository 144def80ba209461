"""The first and the last messages of an attempt on the terminal."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from distcls.engine.checkpoints.progress import Progress, criterion
from distcls.engine.job import Job
from distcls.engine.records.run_folder import RunFolder, Start

_LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")  # what accelerate and torchrun set for their ranks


def announce(
    job: Job,
    name: str,
    folder: RunFolder,
    start: Start,
    found: Path | None,
    progress: Progress,
) -> None:
    """Say what is trained on which data and devices, and where the run resumes.

    Args:
        name: of the recipe.
        found: the checkpoint to resume from, if there is one.
        progress: of that checkpoint.
    """
    images, images_to_evaluate = len(job.train_loader.dataset), len(job.val_loader.dataset)
    parameters = sum(math.prod(run.shape) for _, run in job.strategy.weights())
    job.console.note(
        f"{name}: {parameters / 1e6:.2f} M parameters, {images} training and "
        f"{images_to_evaluate} validation images, {job.total_steps} steps of {job.global_batch_size} images on "
        f"{job.world_size} x {job.device.type}, {job.train_loader.workers} data threads a rank; "
        f"run folder {folder.path}"
    )
    if job.device.type == "cpu" and (line := idle_cores(job.settings.cores, os.environ, launched_with())):
        job.console.note(line)
    if start.copied_from is not None:
        job.console.note(
            f"this folder is a copy of {start.copied_from}, which is still there: from here on it is a run of its own, "
            f"{start.run_id}, on W&B too"
        )
    job.trackers.event("evaluation", **job.val_loader.protocol, tta=job.tta)
    if start.attempt > 1:
        where = f"step {progress.step} ({found.name})" if found else "the beginning: it has no checkpoint yet"
        job.console.note(f"attempt {start.attempt}: going on from {where}")
        samples = job.position(progress.step)["samples"]
        job.trackers.event("resumed", step=progress.step, samples=samples, changed=start.changed, allowed=start.allowed)
        for line in start.notes():
            job.console.note(f"from step {progress.step + 1} on: {line}")
        if progress.step > job.total_steps:
            job.console.note(
                f"the recipe now ends at step {job.total_steps} and the run is at step {progress.step} already: "
                "nothing more is trained, it ends with the weights that it has"
            )
    job.console.start(job.total_steps, job.steps_per_epoch, progress.step)


def idle_cores(cores: int, environment: Mapping[str, str], launcher: Mapping[str, str]) -> str | None:
    """A hint where the launcher, not the user, has limited torch to one thread and left cores idle.

    The number of threads itself is not changed, because another number rounds differently.

    Args:
        cores: available to this rank.
        environment: of this process.
        launcher: the environment that the parent process was started with; empty if it cannot be read.
    """
    # The parent is a launcher if it has added its mark to the environment; a shell adds none.
    launched = bool(launcher) and any(mark in environment and mark not in launcher for mark in _LAUNCHERS)
    if environment.get("OMP_NUM_THREADS") != "1" or cores == 1 or not launched or "OMP_NUM_THREADS" in launcher:
        return None
    return (
        f"each rank computes with 1 thread and has {cores} cores: the launcher has set OMP_NUM_THREADS=1; start it "
        f"with OMP_NUM_THREADS={cores} to use them, and stay with that number: another one rounds differently"
    )


def launched_with() -> dict[str, str]:
    """The environment that the parent process was started with; empty if it cannot be read."""
    try:
        text = Path(f"/proc/{os.getppid()}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def last_words(status: str, folder: RunFolder, progress: Progress) -> list[str]:
    """The last lines of an attempt on the terminal: its results and where they are stored."""
    if status == "preempted":
        return [f"preempted at step {progress.step}, saved in {folder.path}: start the same command again to go on"]
    figures = " ".join(
        f"{name} {value:.4f}" for name, value in progress.last.items() if name.startswith(("loss", "top", "map"))
    )
    name = criterion(progress.last)
    best = f"best {name} {progress.best[name]:.4f} at step {progress.best['step']}"
    return [
        f"finished: val {figures} on {progress.last.get('n', 0)} images; {best}".rstrip("; "),
        f"run folder {folder.path}: report.html, weights/best.safetensors, weights/last.safetensors, metrics.jsonl",
    ]
