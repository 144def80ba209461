"""What the terminal says first and last of an attempt."""

import math
from pathlib import Path

from distcls.engine.checkpoints.snapshot import Progress, criterion
from distcls.engine.job import Job
from distcls.engine.run_folder import RunFolder, Start


def announce(
    job: Job,
    name: str,
    images: tuple[int, int],
    folder: RunFolder,
    start: Start,
    found: Path | None,
    progress: Progress,
) -> None:
    """What is trained on what, and where it goes on from.

    Args:
        job: the built objects.
        name: the recipe's.
        images: of training and validation.
        folder: the run's.
        start: which attempt this is.
        found: the checkpoint that it starts from.
        progress: where that is.
    """
    parameters = sum(math.prod(run.shape) for _, run in job.strategy.weights())
    job.console.note(
        f"{name}: {parameters / 1e6:.2f} M parameters, {images[0]} training and "
        f"{images[1]} validation images, {job.total_steps} steps of {job.global_batch_size} images on "
        f"{job.world_size} x {job.device.type}, {job.train_loader.workers} data threads a rank; "
        f"run folder {folder.path}"
    )
    job.trackers.event("evaluation", **job.val_loader.protocol, tta=job.tta)
    if start.attempt > 1:
        where = f"step {progress.step} ({found.name})" if found else "the beginning: it has no checkpoint yet"
        job.console.note(f"attempt {start.attempt}: going on from {where}")
        job.trackers.event("resumed", step=progress.step, changed=start.changed, allowed=start.allowed)
        for line in start.notes():
            job.console.note(line)
    job.console.start(job.total_steps, job.steps_per_epoch, progress.step)


def last_words(status: str, folder: RunFolder, progress: Progress) -> list[str]:
    if status == "preempted":
        return [f"preempted at step {progress.step}, saved in {folder.path}: start the same command again to go on"]
    figures = " ".join(
        f"{name} {progress.last[name]:.4f}" for name in ("loss", "top1", "top5", "map") if name in progress.last
    )
    name = criterion(progress.last)
    best = f"best {name} {progress.best[name]:.4f} at step {progress.best['step']}"
    return [
        f"finished: val {figures} on {progress.last.get('n', 0)} images; {best}".rstrip("; "),
        f"run folder {folder.path}: report.html, weights/best.safetensors, weights/last.safetensors, metrics.jsonl",
    ]
