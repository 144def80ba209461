"""One attempt at a run, on every rank: check, meet the other ranks, open the folder, build, restore, train, close."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from distcls.engine.batch_record import BatchRecord
from distcls.engine.build import Datasets, Job, build_job, open_datasets
from distcls.engine.checkpoints.snapshot import Progress, Snapshots, criterion
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.fit_ranks import check_ranks
from distcls.engine.initial_weights import InitialWeights
from distcls.engine.metrics import Totals
from distcls.engine.plugins import Plugin, import_parts
from distcls.engine.preemption import StopRequest
from distcls.engine.ranks import collectives, preflight, topology
from distcls.engine.run import Outcome
from distcls.engine.run_folder import RunFolder, Start, Status
from distcls.engine.strategies.accelerator import make_accelerator
from distcls.engine.trainer import train
from distcls.recipe.refill import refilled
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import Source, read
from distcls.recipe.yaml12 import to_yaml
from distcls.tracking.console import Console
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.report import render
from distcls.tracking.trackers import Trackers
from distcls.tracking.wandb import WandbTracker

LAST_SAVE_S = 60.0  # how long a run that failed waits for the save that it had begun


@dataclass
class Plan:
    """What is known before the ranks meet."""

    recipe: Recipe
    source: Source
    plugins: list[Plugin]
    datasets: Datasets
    initial_weights: InitialWeights | None

    def fingerprints(self) -> dict[str, str]:
        return {"data.train": self.datasets.train.fingerprint, "data.val": self.datasets.val.fingerprint}


def prepare(recipe_path: Path, overrides: Sequence[str], world_size: int) -> Plan:
    """Everything that can be checked on one rank, without a GPU or a process group.

    Raises:
        UserError: all mistakes of the recipe; damaged data; a launcher that contradicts the recipe.
    """
    source = read(recipe_path, overrides)
    plugins = import_parts(source)
    recipe = check(source)
    preflight.preflight(precision=recipe.train.precision, strategy=recipe.distributed.strategy)
    datasets = open_datasets(recipe, source)
    check_ranks(recipe, source, world_size)
    initial_weights = InitialWeights(recipe.model.init, source) if recipe.model.init else None
    # a run that goes on does not need the file any more: it may be gone by then
    if initial_weights is not None and not _goes_on(recipe):
        initial_weights.read()
    return Plan(recipe, source, plugins, datasets, initial_weights)


def _goes_on(recipe: Recipe) -> bool:
    """Whether there is a checkpoint to go on from; it may still turn out damaged."""
    folder = RunFolder(Path(recipe.output_dir)).checkpoints
    return recipe.checkpoint.resume != "never" and any(folder.glob("step_*/MANIFEST.json"))


def run(recipe_path: Path, overrides: Sequence[str], stop: StopRequest) -> Outcome:
    """See `distcls.engine.run.train`."""
    _, world_size, _, local_world_size = topology.launched_ranks()
    plan = prepare(recipe_path, overrides, world_size)
    sharded = plan.recipe.distributed.strategy != "ddp"
    accelerator = make_accelerator(precision=plan.recipe.train.precision, sharded=sharded)
    try:
        return _attempt(plan, accelerator, local_world_size, stop)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _attempt(plan: Plan, accelerator: Accelerator, local_world_size: int, stop: StopRequest) -> Outcome:
    recipe, rank, ranks = plan.recipe, accelerator.process_index, accelerator.num_processes
    collectives.same_on_all_ranks(
        {
            "recipe": recipe.resolved(),
            "plug-ins": {plugin.name: plugin.sha256 for plugin in plan.plugins},
            "data": plan.fingerprints(),
        }
    )
    console = Console(rank)
    folder = RunFolder(Path(recipe.output_dir))
    start: Start = collectives.on_rank_zero(rank, lambda: _begin(folder, plan, ranks))
    if start.finished:
        folder.close()
        console.finish([start.message or ""])
        return Outcome("already finished", folder.path, {}, {})
    if rank == 0:
        stop.stop_file = folder.stop_file

    trackers = Trackers([], warn=console.warn)
    status: Literal["finished", "preempted", "failed"] = "failed"
    message: str | None = None
    snapshots: Snapshots | None = None
    try:
        gather = collectives.gather_apart(ranks)
        store = CheckpointStore(folder.checkpoints, recipe.checkpoint.keep, rank, ranks, gather=gather)
        found = store.latest()
        with collectives.together(rank, ranks):
            if rank == 0:
                trackers.backends = _backends(plan, folder, start, console)
            job = build_job(
                recipe,
                plan.source,
                plan.datasets,
                accelerator,
                initial_weights=plan.initial_weights,
                resuming=found is not None,
                local_world_size=local_world_size,
                trackers=trackers,
                console=console,
                stop=stop,
            )
        window = Totals(job.device, ranks)
        snapshots = Snapshots(job, store, folder.weights, _identity(plan, start))
        progress = snapshots.restore(found, window, start.changed) if found else Progress()
        if recipe.tracking.batches:
            job.train_loader.watch = BatchRecord(
                folder.path,
                progress.step,
                rank=rank,
                world_size=ranks,
                accumulation_steps=job.accumulation_steps,
                attempt=start.attempt,
            )
        _announce(job, plan, folder, start, found, progress)

        status = train(job, snapshots, progress, window)
        if status == "finished":
            snapshots.export("last", progress)
        else:
            message = stop.requested or "another rank was asked to stop"
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
        raise
    finally:
        if snapshots is not None:
            _finish_save(snapshots, console)
        # Trackers first: a preempted job is killed soon, and what run.json says must come last.
        trackers.finish(status, message)
        if rank == 0:
            if status == "preempted":
                stop.done()
            _end(folder, status, message, console)
            if status != "preempted":  # the grace period is short
                _draw(folder, console)
        if status != "failed" and ranks > 1:
            torch.distributed.barrier()  # a launcher kills all ranks as soon as the first has left
    console.finish(_last_words(status, folder, progress))
    return Outcome(status, folder.path, progress.last, progress.best)


def _finish_save(snapshots: Snapshots, console: Console) -> None:
    """A run that ends in an error still gets the checkpoint that it had begun, unless another rank is in its way."""
    try:
        snapshots.settle(seconds=LAST_SAVE_S)
    except Exception as error:
        console.warn(f"a checkpoint was not completed: {type(error).__name__}: {error}")


def _end(folder: RunFolder, status: Status, message: str | None, console: Console) -> None:
    try:
        folder.end(status, message)
    except OSError as error:  # a full disk must not hide what ended the run
        console.warn(f"{folder.path}/run.json still says running: {error.strerror}")
    finally:
        folder.close()


def _draw(folder: RunFolder, console: Console) -> None:
    """`report.html`; a run that trained well does not fail for its picture."""
    try:
        (folder.path / "report.html").write_text(render([folder.path]))
    except Exception as error:
        console.warn(f"{folder.path}/report.html was not drawn: {type(error).__name__}: {error}")


def _begin(folder: RunFolder, plan: Plan, ranks: int) -> Start:
    resolved = plan.recipe.resolved()
    start = folder.begin(
        resolved,
        recipe_yaml=to_yaml(resolved),
        fingerprints=plan.fingerprints(),
        world_size=ranks,
        threads=torch.get_num_threads(),
        resume=plan.recipe.checkpoint.resume,
        allow_changes=plan.recipe.checkpoint.allow_changes,
        refill=refilled,
    )
    for plugin in plan.plugins:
        if plugin.file.is_file():
            (folder.path / "plugins").mkdir(exist_ok=True)
            shutil.copyfile(plugin.file, folder.path / "plugins" / f"{plugin.sha256[:12]}_{plugin.file.name}")
    return start


def _backends(plan: Plan, folder: RunFolder, start: Start, console: Console) -> list:
    log = MetricsLog(folder.path, start.attempt, warn=console.warn)
    backends: list[Any] = [log]
    tracking = plan.recipe.tracking
    if tracking.mode != "disabled":
        backends.append(
            WandbTracker(
                folder.path,
                run_id=start.run_id,
                mode=tracking.mode,
                project=tracking.project,
                entity=tracking.entity,
                name=tracking.name or plan.recipe.name,
                group=tracking.group,
                tags=tracking.tags,
                notes=tracking.notes,
                config=plan.recipe.resolved(),
                note=console.note,
            )
        )
    return backends


def _identity(plan: Plan, start: Start) -> dict[str, Any]:
    """What checkpoints and weights say about where they come from."""
    return {
        "run_id": start.run_id,
        "recipe": plan.recipe.resolved(),
        "class_names": plan.datasets.train.class_names,
        "mean": list(plan.datasets.train.mean),
        "std": list(plan.datasets.train.std),
    }


def _announce(job: Job, plan: Plan, folder: RunFolder, start: Start, found: Path | None, progress: Progress) -> None:
    parameters = sum(math.prod(run.shape) for _, run in job.strategy.weights())
    job.console.note(
        f"{plan.recipe.name}: {parameters / 1e6:.2f} M parameters, {len(plan.datasets.train)} training and "
        f"{len(plan.datasets.val)} validation images, {job.total_steps} steps of {job.global_batch_size} images on "
        f"{job.world_size} x {job.device.type}, {job.train_loader.workers} data threads a rank; "
        f"run folder {folder.path}"
    )
    if start.attempt > 1:
        where = f"step {progress.step} ({found.name})" if found else "the beginning: it has no checkpoint yet"
        job.console.note(f"attempt {start.attempt}: going on from {where}")
        job.trackers.event("resumed", step=progress.step, changed=start.changed, allowed=start.allowed)
        for line in start.notes():
            job.console.note(line)
    job.console.start(job.total_steps, job.steps_per_epoch, progress.step)


def _last_words(status: str, folder: RunFolder, progress: Progress) -> list[str]:
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
