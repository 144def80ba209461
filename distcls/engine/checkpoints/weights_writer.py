"""Writes ``weights/best.safetensors`` and ``weights/last.safetensors`` of a run in the background."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from distcls.engine.checkpoints.background import Background, cpu_copies
from distcls.engine.checkpoints.export import metadata
from distcls.engine.checkpoints.progress import Progress
from distcls.engine.checkpoints.tensor_file import SaveFailed, save_weights
from distcls.engine.job import Job
from distcls.engine.strategies.buffers import averaged_buffers
from distcls.engine.strategies.shards import other_names


class WeightsWriter:
    """Copies weights while training waits and writes them while it continues, one file at a time.

    After a kill at any moment a file is either the old or the new one.

    Args:
        folder: `weights/` of the run.
        identity: the facts that every weights file records about its run.
    """

    def __init__(self, job: Job, folder: Path, identity: dict[str, Any]) -> None:
        self._job = job
        self._folder = folder
        self._identity = identity
        self._background: Background[None] = Background()

    def write(self, name: str, progress: Progress) -> None:
        """Start to write ``<name>.safetensors``: the weights, or their moving average if there is one. Collective.

        BatchNorm buffers are averaged over the ranks. This waits for a file being written first.
        """
        self.settle()
        tensors = self._copies()
        if self._job.rank == 0:
            path, about = self._folder / f"{name}.safetensors", metadata(self._identity, progress.step, progress.last)
            self._background.start(lambda: save_weights(path, tensors, about))

    def end_of_work(self) -> Callable[[], None]:
        """A function that waits, in any thread, until the file being written now is complete or has failed."""
        return self._background.end_of_work()

    def poll(self) -> None:
        """Warn if a file could not be written."""
        if self._background.done:
            self.settle()

    def settle(self, seconds: float | None = None) -> None:
        """Wait for the file being written, if any. An error is only a warning: checkpoints hold the weights as well.

        Raises:
            TimeoutError: it takes longer than `seconds`.
        """
        if not self._background.idle:
            try:
                self._background.collect(seconds)
            except SaveFailed as error:
                self._job.trackers.warn(str(error))

    def _copies(self) -> dict[str, Tensor]:
        """Copy the content of a weights file to CPU memory; empty on all ranks but 0."""
        job, whole, parameters = self._job, {}, {}
        average = job.ema.applied() if job.ema is not None else nullcontext()
        with average, averaged_buffers(job.classifier, job.world_size):
            for name, parameter in job.strategy.gathered():
                if job.rank == 0 and job.strategy.replicated:
                    parameters[name] = parameter
                elif job.rank == 0:  # whole only until the next one is gathered
                    whole[name] = parameter.detach().to("cpu", copy=True)
            if job.rank != 0:
                return {}
            persistent = job.classifier.state_dict()
            buffers = {name: buffer for name, buffer in job.classifier.named_buffers() if name in persistent}
            copied = cpu_copies({"parameters": parameters, "buffers": buffers})
        tensors = {**whole, **copied["parameters"], **copied["buffers"]}
        shared = other_names(job.classifier)
        return tensors | {name: tensors[kept] for name, kept in shared.items() if kept in tensors}
