"""What a checkpoint of a run contains, and how it is taken from a job and restored into one.

Each rank writes its own shards of the model, its moving average and the optimizer (rank 0 those that all ranks hold).
Any number of ranks can read them under any strategy, see reshard.py.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distcls.engine.checkpoints.background import Background, cpu_copies
from distcls.engine.checkpoints.progress import Progress
from distcls.engine.checkpoints.rank_share import AVERAGE, BUFFER, merged
from distcls.engine.checkpoints.reshard import shard_name
from distcls.engine.checkpoints.state_tree import flatten_state, unflatten_state
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checkpoints.tensor_file import SaveFailed
from distcls.engine.checkpoints.weights_writer import WeightsWriter
from distcls.engine.job import Job
from distcls.engine.records.same_run import differences
from distcls.engine.strategies.optimizer_state import once, restore_state, shards_of_state
from distcls.engine.strategies.shards import other_names
from distcls.engine.totals import Totals
from distcls.errors import UserError


class Snapshots:
    """Saves and restores a job: shards of weights and optimizer; each rank's BatchNorm buffers and logging sums.

    Args:
        store: the checkpoints of the run folder.
        weights: folder for exported weights.
        identity: the facts that every checkpoint and weights file records about its run (run id, recipe, ...).
    """

    def __init__(self, job: Job, store: CheckpointStore, weights: Path, identity: dict[str, Any]) -> None:
        self._job = job
        self._store = store
        self._weights = weights
        self._identity = {**identity, "evaluation": {**job.val_loader.protocol, "tta": job.tta}}
        self._writer = WeightsWriter(job, weights, self._identity)
        self._background: Background[Path] = Background()
        self._pending = (0, 0.0, 0.0)  # of the save in progress: step, start time, seconds that its copy took

    @property
    def run_folder(self) -> Path:
        return self._weights.parent

    def newest(self) -> Path | None:
        """The newest valid checkpoint, after waiting for a save in progress; the same on all ranks."""
        self.settle()
        return self._store.latest()

    def save(self, progress: Progress, window: Totals, *, required: bool) -> float:
        """Save a checkpoint at `progress.step`: copy to CPU memory now, hash and write in the background.

        This waits for a save in progress first, so that there is at most one copy in memory. If a periodic checkpoint
        fails, for example on a full disk, that is only a warning. A `required` one (the last before leaving) is on the
        disk when this returns.

        Returns:
            The seconds that training had to wait.

        Raises:
            SaveFailed: a required checkpoint could not be written.
        """
        began = time.perf_counter()
        self._settle_save()
        files, state = self._state(progress, window)
        step, best = progress.step, progress.best.get("step") == progress.step
        weights_written = self._writer.end_of_work()

        def commit() -> Path:
            weights_written()  # a checkpoint must not know of better weights than weights/ holds
            self._job.trackers.sync()  # a checkpoint must not be ahead of the logged rows
            return self._store.save(step, files, state, best=best)

        self._background.start(commit)
        self._pending = step, began, time.perf_counter() - began
        if required:
            self.settle(required=True)
        return time.perf_counter() - began

    def poll(self) -> None:
        """Report saves that have finished since the last call; cheap enough for every step."""
        self._writer.poll()
        if self._background.done:
            self._settle_save()

    def settle(self, *, required: bool = False, seconds: float | None = None) -> None:
        """Wait for the weights and the checkpoint being written, if any, and report the result.

        Raises:
            SaveFailed: a required save failed.
            TimeoutError: one of them takes longer than `seconds`.
        """
        self._writer.settle(seconds)
        self._settle_save(required=required, seconds=seconds)

    def _settle_save(self, *, required: bool = False, seconds: float | None = None) -> None:
        if self._background.idle:
            return
        step, began, stall = self._pending
        try:
            path = self._background.collect(seconds)
        except SaveFailed as error:
            if required:
                raise
            self._job.trackers.warn(str(error))
            self._job.trackers.event("checkpoint_failed", step=step, reason=str(error))
            return
        seconds_in_all = round(time.perf_counter() - began, 3)
        self._job.trackers.event(
            "checkpoint", step=step, path=str(path), seconds=seconds_in_all, copy_seconds=round(stall, 3)
        )

    def _state(self, progress: Progress, window: Totals) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        """This rank's files, copied to the CPU, and the rest of the state, which is JSON-able."""
        job = self._job
        names, sums = window.state()
        buffers = {f"{BUFFER}{name}": buffer for name, buffer in job.classifier.named_buffers()}
        if job.ema is not None:
            buffers |= {f"{AVERAGE}{name}": buffer for name, buffer in job.ema.buffers().items()}
        files = {"rank": {"window": sums, **buffers}, **self._shards()}
        numbers, optimizer_tree = flatten_state(once(job.strategy))
        if job.rank == 0:
            files["once"] = numbers
        scaler, exported = job.accelerator.scaler, job.classifier.state_dict().keys()
        state = {
            **self._identity,
            **job.position(progress.step),
            "progress": asdict(progress),
            "window": names,
            "optimizer": optimizer_tree,
            "other_names": other_names(job.classifier),
            "persistent": [name for name, _ in job.classifier.named_buffers() if name in exported],
            "shapes": {run.name: list(run.shape) for _, run in job.strategy.weights()},
            "world_size": job.world_size,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        return cpu_copies(files), state

    def _shards(self) -> dict[str, dict[str, torch.Tensor]]:
        """This rank's shards by file, under names that say which elements they hold."""
        strategy, first, files = self._job.strategy, self._job.rank == 0, {}
        if first or not strategy.replicated:
            runs = {run.name: run for _, run in strategy.weights() if run.length}
            weights = strategy.local_weights()
            files["model"] = {shard_name(run): weights[name] for name, run in runs.items()}
            if self._job.ema is not None:
                average = self._job.ema.state()
                files["ema"] = {shard_name(run): average[name] for name, run in runs.items()}
        if first or not strategy.replicated_optimizer:
            files["optimizer"] = {shard_name(run, key): values for run, key, values in shards_of_state(strategy)}
        return files

    def restore(self, path: Path, window: Totals) -> Progress:
        """Load the checkpoint at `path` into the job and `window`; nothing is changed before all of it is read.

        On the number of ranks that wrote it, each rank gets back its own values. On another number, BatchNorm buffers
        are averaged over the ranks that wrote them, the open logging sums are added up, and shards are cut anew.

        The recipe may have changed. Its optimizer settings replace those saved; an optimizer of another type starts
        without state, a new moving average starts at the weights, and the logging window of another head starts empty.
        What has changed is found by comparing with the recipe in the checkpoint, not with that of the last attempt,
        which may have ended without writing a checkpoint.

        Raises:
            UserError: the model has other weights or buffers than the checkpoint.
        """
        job, store, strategy = self._job, self._store, self._job.strategy
        state, first = store.load(path, rank=0, stems=["rank", "once"])
        writers = state["world_size"]
        if writers == job.world_size:
            own = store.load(path, stems=["rank"])[1]["rank"]
        else:
            own = merged([store.load(path, rank=rank, stems=["rank"])[1]["rank"] for rank in range(writers)])
            if job.rank != 0:
                own["window"].zero_()
        runs = [run for _, run in strategy.weights()]
        buffers = {name: own[name] for name in own if name.startswith(BUFFER)}
        _refuse_other_model(
            state["shapes"] | {name.removeprefix(BUFFER): list(buffer.shape) for name, buffer in buffers.items()},
            {run.name: list(run.shape) for run in runs}
            | {name: list(buffer.shape) for name, buffer in job.classifier.named_buffers()},
            path,
        )
        shards = store.load_runs(path, ["model", "ema"], runs)
        updated = [run for held in strategy.held() for run in held.runs]
        moments = store.load_runs(path, ["optimizer"], updated)["optimizer"]
        with torch.no_grad():
            for name, weight in strategy.local_weights().items():
                if weight.numel():
                    weight.copy_(shards["model"][name].view(weight.shape))
            strategy.weights_changed()
            for name, buffer in job.classifier.named_buffers():
                buffer.copy_(buffers[f"{BUFFER}{name}"])
            before, now = state["recipe"]["optimizer"], self._identity["recipe"]["optimizer"]
            changed = {key for key, *_ in differences(before, now)}
            if "type" not in changed:
                restore_state(strategy, unflatten_state(first["once"], state["optimizer"]), moments, changed)
            if job.ema is not None:
                average = {name: own.get(f"{AVERAGE}{name}", own[f"{BUFFER}{name}"]) for name in job.ema.buffers()}
                job.ema.load(shards.get("ema") or shards["model"], average)
        if state["scaler"] is not None and job.accelerator.scaler is not None:
            job.accelerator.scaler.load_state_dict(state["scaler"])
        if state["recipe"]["model"]["head"] == self._identity["recipe"]["model"]["head"]:
            window.load(state["window"], own["window"])  # another head logs other values
        job.samples_before = state["samples"] - job.position(state["step"])["samples"]  # the batch may have changed
        return Progress(**state["progress"])

    def export(self, name: str, progress: Progress) -> None:
        """Write ``weights/<name>.safetensors`` in the background, see WeightsWriter.write."""
        self._writer.write(name, progress)


def _refuse_other_model(saved: dict[str, list[int]], own: dict[str, list[int]], path: Path) -> None:
    for name in [*saved, *(name for name in own if name not in saved)]:
        if saved.get(name) != own.get(name):
            raise UserError(
                f"checkpoint {path} is of another model: {name} is {saved.get(name, 'missing')} there and "
                f"{own.get(name, 'missing')} here. Give another output_dir; model.init takes over what fits"
            )
