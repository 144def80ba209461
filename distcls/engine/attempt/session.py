"""One attempt at a run, on every rank: check, meet the other ranks, open the folder, build, restore, train, close."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from distcls.data.augmenting.draws import AUGMENT_VERSION
from distcls.data.decoding.jpeg_window import window_decoder
from distcls.data.sampling.order import ORDER_VERSION
from distcls.engine.attempt.announce import announce, last_words
from distcls.engine.attempt.ending import complete_report, draw_report, end_lost, end_run, finish_save
from distcls.engine.building.backends import make_backends
from distcls.engine.building.build import Datasets, build_job, open_datasets
from distcls.engine.building.initial_weights import InitialWeights
from distcls.engine.checkpoints.progress import Progress
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checks.fit_ranks import check_device, check_ranks
from distcls.engine.checks.located import located
from distcls.engine.checks.plugins import Plugin, checked_recipe
from distcls.engine.job import Job
from distcls.engine.ranks import collectives, heartbeat, network, preflight, topology
from distcls.engine.ranks.code_version import code_version
from distcls.engine.ranks.heartbeat import Heartbeat
from distcls.engine.ranks.meeting import meet
from distcls.engine.ranks.shared_folder import NFS_CACHE_S, check_shared
from distcls.engine.ranks.watchdog import RankLost, Watchdog, collective_timeout, is_collective_error, lost_unwatched
from distcls.engine.records.batch_record import BatchRecord
from distcls.engine.records.environment import environment, place, record
from distcls.engine.records.run_folder import RunFolder, Start
from distcls.engine.stopping.outcome import Outcome
from distcls.engine.stopping.preemption import StopRequest
from distcls.engine.strategies.accelerator import make_accelerator
from distcls.engine.totals import Totals
from distcls.engine.trainer import train
from distcls.errors import UserError
from distcls.recipe.refill import refilled
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source
from distcls.recipe.yaml12 import to_yaml
from distcls.tracking.console import Console
from distcls.tracking.trackers import Trackers

FIRST_WORD_S = 30.0  # how long a rank whose recipe is wrong tries to tell other nodes
LAST_SAVE_S = 60.0  # how long a run that failed waits for the save that it had begun


@dataclass
class Prepared:
    """What is known before the ranks meet."""

    recipe: Recipe
    source: Source
    plugins: list[Plugin]
    datasets: Datasets
    initial_weights: InitialWeights | None

    def fingerprints(self) -> dict[str, str]:
        """What the data are, whatever their paths: the files' own, and what images are normalised with."""
        train, val = self.datasets.train, self.datasets.val
        normalised = " ".join(f"{value:.6g}" for value in (*train.mean, *train.std))
        return {"data.train": train.fingerprint, "data.val": val.fingerprint, "data.train (mean, std)": normalised}


def prepare(recipe_path: Path, overrides: Sequence[str], world_size: int) -> Prepared:
    """Everything that can be checked on one rank, without a GPU or a process group.

    Raises:
        UserError: all mistakes of the recipe; damaged data; a launcher that contradicts the recipe.
    """
    recipe, source, plugins = checked_recipe(recipe_path, overrides)
    preflight.preflight(precision=recipe.train.precision, strategy=recipe.distributed.strategy)
    datasets = open_datasets(recipe, source)
    check_ranks(recipe, source, world_size, gpu=torch.cuda.is_available())
    initial_weights = InitialWeights(recipe.model.init, source) if recipe.model.init else None
    # a run that goes on does not need the file any more: it may be gone by then
    if initial_weights is not None and not _goes_on(recipe):
        initial_weights.read()
    return Prepared(recipe, source, plugins, datasets, initial_weights)


def _goes_on(recipe: Recipe) -> bool:
    """Whether there is a checkpoint to go on from; it may still turn out damaged."""
    folder = RunFolder(Path(recipe.output_dir)).checkpoints
    return recipe.checkpoint.resume != "never" and any(folder.glob("step_*/MANIFEST.json"))


def run(recipe_path: Path, overrides: Sequence[str], stop: StopRequest) -> Outcome:
    """See `distcls.engine.run.train`."""
    rank, world_size, _, local_world_size = topology.launched_ranks()
    several_nodes, timeout_s = world_size > local_world_size, FIRST_WORD_S
    error: UserError | None = None
    try:
        prepared = prepare(recipe_path, overrides, world_size)
        timeout_s = prepared.recipe.distributed.timeout_s
        network.check_interfaces(several_nodes=several_nodes)
    except UserError as raised:
        error = raised
    if several_nodes:
        meet(rank, world_size, error, timeout_s)
    if error is not None:
        raise error
    accelerator = _form_group(prepared.recipe, world_size)
    ended = False
    try:
        outcome = _attempt(prepared, accelerator, local_world_size, stop)
        ended = True
        return outcome
    except RuntimeError as broken:
        if world_size == 1 or not is_collective_error(broken):
            raise
        raise lost_unwatched(broken) from broken
    finally:
        # After an error it would wait for ranks that are gone.
        if torch.distributed.is_initialized() and (ended or world_size == 1):
            torch.distributed.destroy_process_group()


def _form_group(recipe: Recipe, world_size: int) -> Accelerator:
    """This rank's device, and the process group."""
    try:
        return make_accelerator(
            precision=recipe.train.precision,
            timeout=collective_timeout(recipe.distributed.timeout_s),
            sharded=recipe.distributed.strategy != "ddp",
        )
    except (RuntimeError, ValueError) as error:
        if world_size == 1:
            raise
        raise network.unreachable(error) from error


def _attempt(prepared: Prepared, accelerator: Accelerator, local_world_size: int, stop: StopRequest) -> Outcome:
    recipe, rank, ranks = prepared.recipe, accelerator.process_index, accelerator.num_processes
    check_device(recipe, prepared.source, accelerator.device)
    collectives.same_on_all_ranks(
        {
            "code": code_version(),
            "recipe": recipe.resolved(),
            "plug-ins": {Path(plugin.name).name: plugin.sha256[:16] for plugin in prepared.plugins},
            **prepared.fingerprints(),
            "JPEG decoding (launch/setup.sh compiles it)": window_decoder().name,
        }
    )
    console = Console(rank)
    folder = RunFolder(Path(recipe.output_dir))
    places = collectives.gather(place(accelerator.device))
    start: Start = collectives.on_rank_zero(rank, lambda: _begin(folder, prepared, ranks))
    if start.finished:
        if rank == 0:
            complete_report(folder, console)
        folder.close()
        console.finish([start.message or ""])
        return Outcome("already finished", folder.path, {}, {})
    if rank == 0:
        stop.stop_file = folder.stop_file

    trackers = Trackers([], warn=console.warn)
    heart = Heartbeat(folder.path / "heartbeat", rank, ranks)
    watchdog = Watchdog(
        heart,
        timeout_s=recipe.distributed.timeout_s,
        warn_after_s=recipe.distributed.warn_after_s,
        record=lambda error: end_lost(folder, start.attempt, error, console),
    )
    status: Literal["finished", "preempted", "failed"] = "failed"
    message: str | None = None
    exit_code: int | None = None
    lost: RankLost | None = None
    snapshots: Snapshots | None = None
    try:
        check_shared(folder.path, rank, wait_s=min(NFS_CACHE_S, recipe.distributed.timeout_s))
        heart.start()
        watchdog.start()
        gather = collectives.gather_apart(ranks, collective_timeout(recipe.distributed.timeout_s))
        store = CheckpointStore(folder.checkpoints, recipe.checkpoint.keep, rank, ranks, gather=gather)
        found = store.latest()
        heart.beat(0, "building")
        with collectives.together(rank, ranks), located(prepared.source):
            if rank == 0:
                facts = environment(places)
                environments = record(folder.path, start.attempt, facts, _code_folders(prepared))
                fingerprints = prepared.fingerprints()
                trackers.backends = make_backends(recipe, folder.path, start, fingerprints, environments, console)
            job = build_job(
                recipe,
                prepared.source,
                prepared.datasets,
                accelerator,
                initial_weights=prepared.initial_weights,
                resuming=found is not None,
                local_world_size=local_world_size,
                trackers=trackers,
                console=console,
                stop=stop,
                heart=heart,
            )
        window = Totals(job.device, ranks)
        snapshots = Snapshots(job, store, folder.weights, _identity(prepared, start))
        heart.beat(0, "restoring")
        progress = snapshots.restore(found, window) if found else Progress()
        if recipe.tracking.batches:
            job.train_loader.watch = _batch_record(job, folder, progress.step, start.attempt)
        announce(job, recipe.name, folder, start, found, progress)

        status = train(job, snapshots, progress, window)
        if status == "finished":
            snapshots.export("last", progress)
            snapshots.settle()
        else:
            message = stop.requested or "another rank was asked to stop"
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
        exit_code = getattr(error, "exit_code", 1)
        if ranks == 1 or not is_collective_error(error):
            raise
        lost = watchdog.explain(error)
        message = f"RankLost: {lost}"
        raise lost from error
    finally:
        watchdog.stop()
        heart.close(message or status, bereft=lost is not None)
        if snapshots is not None:
            finish_save(snapshots, console, seconds=LAST_SAVE_S if lost is None else 5)
        # Trackers first: a preempted job is killed soon, and what run.json says must come last.
        trackers.finish(status, message)
        if lost is not None and rank != 0:
            end_lost(folder, start.attempt, lost, console)
        if rank == 0:
            if status == "preempted":
                stop.done()
            end_run(folder, status, message, exit_code, console)
            draw_report(folder, console, seconds=5 if status == "preempted" else 60)  # the grace period is short
        if status != "failed" and ranks > 1:
            torch.distributed.barrier()  # a launcher kills all ranks as soon as the first has left
    console.finish(last_words(status, folder, progress))
    return Outcome(status, folder.path, progress.last, progress.best)


def _begin(folder: RunFolder, prepared: Prepared, ranks: int) -> Start:
    resolved = prepared.recipe.resolved()
    start = folder.begin(
        resolved,
        recipe_yaml=to_yaml(resolved),
        fingerprints=prepared.fingerprints(),
        world_size=ranks,
        threads=torch.get_num_threads(),
        versions={"jpeg": window_decoder().name, "order": f"{ORDER_VERSION}", "augment": f"{AUGMENT_VERSION}"},
        resume=prepared.recipe.checkpoint.resume,
        allow_changes=prepared.recipe.checkpoint.allow_changes,
        refill=refilled,
    )
    heartbeat.clear(folder.path / "heartbeat")
    for plugin in prepared.plugins:
        if plugin.file.is_file():
            (folder.path / "plugins").mkdir(exist_ok=True)
            shutil.copyfile(plugin.file, folder.path / "plugins" / f"{plugin.sha256[:12]}_{plugin.file.name}")
    return start


def _batch_record(job: Job, folder: RunFolder, first_step: int, attempt: int) -> BatchRecord:
    return BatchRecord(
        folder.path,
        first_step,
        rank=job.rank,
        world_size=job.world_size,
        accumulation_steps=job.accumulation_steps,
        attempt=attempt,
    )


def _code_folders(prepared: Prepared) -> list[Path]:
    plugins = (plugin.file for plugin in prepared.plugins)
    return [file.parent for file in (*prepared.source.files, *plugins, Path(__file__))]


def _identity(prepared: Prepared, start: Start) -> dict[str, Any]:
    """What checkpoints and weights say about where they come from."""
    return {
        "run_id": start.run_id,
        "recipe": prepared.recipe.resolved(),
        "class_names": prepared.datasets.train.class_names,
        "mean": list(prepared.datasets.train.mean),
        "std": list(prepared.datasets.train.std),
    }
