"""One attempt at a run, on every rank, from top to bottom. What happens when something fails:

* Before the ranks meet (recipe, data, weights, launcher): each rank raises its own error and tells the other nodes.
* While they compare what they have and open the folder: one error, on all ranks.
* While a rank builds its job: all ranks leave, and the one that failed says why.
* In training: after a stop request or a non-finite loss all ranks leave at the same step; when a rank dies or hangs,
  the others notice and end with its name (RankLost).
* In every case `Attempt` finishes the save under way, closes the trackers, writes run.json and draws the report.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator

from distcls.engine.attempt.announce import announce, last_words
from distcls.engine.attempt.attempt import Attempt
from distcls.engine.attempt.ending import complete_report
from distcls.engine.attempt.opening import check_same, open_folder
from distcls.engine.attempt.preparing import Prepared, prepare
from distcls.engine.building.backends import make_backends
from distcls.engine.building.build import build_job
from distcls.engine.checkpoints.progress import Progress
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checks.fit_ranks import check_device
from distcls.engine.checks.located import located
from distcls.engine.job import Job
from distcls.engine.ranks import collectives, network, topology
from distcls.engine.ranks.meeting import meet
from distcls.engine.ranks.shared_folder import NFS_CACHE_S, check_shared
from distcls.engine.ranks.watchdog import collective_timeout, is_collective_error, lost_unwatched
from distcls.engine.records.batch_record import BatchRecord
from distcls.engine.records.environment import environment, place, record
from distcls.engine.records.run_folder import RunFolder, Start
from distcls.engine.stopping.outcome import Outcome
from distcls.engine.stopping.preemption import StopRequest
from distcls.engine.strategies.accelerator import make_accelerator
from distcls.engine.totals import Totals
from distcls.engine.trainer import train
from distcls.errors import UserError
from distcls.recipe.schema import Recipe
from distcls.tracking.console import Console

MEETING_S = 30.0  # how long a rank whose own checks failed tries to tell the other nodes


def run(recipe_path: Path, overrides: Sequence[str], stop: StopRequest) -> Outcome:
    """See `distcls.engine.run.train`."""
    rank, world_size, _, local_world_size = topology.launched_ranks()
    prepared = _prepare_and_meet(recipe_path, overrides, rank, world_size, several_nodes=world_size > local_world_size)
    with _process_group(prepared.recipe, world_size) as accelerator:
        return _attempt(prepared, accelerator, local_world_size, stop)


def _prepare_and_meet(
    recipe_path: Path, overrides: Sequence[str], rank: int, world_size: int, *, several_nodes: bool
) -> Prepared:
    """Make this rank's own checks; on several nodes, whose launchers do not watch each other, exchange the results."""
    timeout_s, error = MEETING_S, None
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
    return prepared


@contextmanager
def _process_group(recipe: Recipe, world_size: int) -> Iterator[Accelerator]:
    """The accelerator, within a process group. A broken connection that nothing else explains becomes a RankLost."""
    accelerator = _form_group(recipe, world_size)
    ended = False
    try:
        yield accelerator
        ended = True
    except RuntimeError as broken:
        if world_size == 1 or not is_collective_error(broken):
            raise
        raise lost_unwatched(broken) from broken
    finally:
        # After an error this would wait for ranks that are gone.
        if torch.distributed.is_initialized() and (ended or world_size == 1):
            torch.distributed.destroy_process_group()


def _form_group(recipe: Recipe, world_size: int) -> Accelerator:
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
    """Check, open the folder, build, restore, train, close."""
    recipe, rank, ranks = prepared.recipe, accelerator.process_index, accelerator.num_processes
    check_device(recipe, prepared.source, accelerator.device)
    check_same(prepared)
    console = Console(rank)
    places = collectives.gather(place(accelerator.device))
    folder, start = open_folder(prepared, rank, ranks)
    if start.finished:
        return _nothing_left(folder, start, rank, console)

    timeout_s, warn_after_s = recipe.distributed.timeout_s, recipe.distributed.warn_after_s
    with Attempt(
        folder, start, console, stop, timeout_s=timeout_s, warn_after_s=warn_after_s, rank=rank, ranks=ranks
    ) as attempt:
        check_shared(folder.path, rank, wait_s=min(NFS_CACHE_S, timeout_s))
        attempt.watch()
        gather = collectives.gather_apart(ranks, collective_timeout(timeout_s))
        store = CheckpointStore(folder.checkpoints, recipe.checkpoint.keep, rank, ranks, gather=gather)
        found = store.latest()
        job = _build(prepared, accelerator, local_world_size, attempt, places, resuming=found is not None)
        attempt.snapshots = snapshots = Snapshots(job, store, folder.weights, prepared.identity(start.run_id))
        window = Totals(job.device, ranks)
        attempt.heart.beat(0, "restoring")
        progress = snapshots.restore(found, window) if found else Progress()
        if recipe.tracking.batches:
            job.train_loader.watch = _batch_record(job, folder, progress.step, start.attempt)
        announce(job, recipe.name, folder, start, found, progress)

        attempt.status = train(job, snapshots, progress, window)
        if attempt.status == "finished":
            snapshots.export("last", progress)
            snapshots.settle()
        else:
            attempt.message = stop.requested or "another rank was asked to stop"
    console.finish(last_words(attempt.status, folder, progress))
    return Outcome(attempt.status, folder.path, progress.last, progress.best)


def _nothing_left(folder: RunFolder, start: Start, rank: int, console: Console) -> Outcome:
    """The run had finished before; its last attempt may have been killed before it drew the report."""
    if rank == 0:
        complete_report(folder, console)
    folder.close()
    console.finish([start.message or ""])
    return Outcome("already finished", folder.path, {}, {})


def _build(
    prepared: Prepared,
    accelerator: Accelerator,
    local_world_size: int,
    attempt: Attempt,
    places: list[dict[str, str]],
    *,
    resuming: bool,
) -> Job:
    """Start the trackers and build the job, on all ranks or on none; errors of a part name its line in the recipe."""
    recipe, folder, start = prepared.recipe, attempt.folder.path, attempt.start
    attempt.heart.beat(0, "building")
    with collectives.together(attempt.rank, attempt.ranks), located(prepared.source):
        if attempt.rank == 0:
            environments = record(folder, start.attempt, environment(places), prepared.code_folders())
            attempt.trackers.backends = make_backends(
                recipe, folder, start, prepared.fingerprints(), environments, attempt.console
            )
        return build_job(
            recipe,
            prepared.source,
            prepared.datasets,
            accelerator,
            initial_weights=prepared.initial_weights,
            resuming=resuming,
            local_world_size=local_world_size,
            trackers=attempt.trackers,
            console=attempt.console,
            stop=attempt.stop,
            heart=attempt.heart,
        )


def _batch_record(job: Job, folder: RunFolder, first_step: int, attempt: int) -> BatchRecord:
    return BatchRecord(
        folder.path,
        first_step,
        rank=job.rank,
        world_size=job.world_size,
        accumulation_steps=job.accumulation_steps,
        attempt=attempt,
    )
