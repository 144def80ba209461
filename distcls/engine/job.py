"""Everything that the train loop works with."""

from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator

from distcls.data.loader import EvalLoader, TrainLoader
from distcls.engine.evaluation.class_metrics import ClassMetrics
from distcls.engine.evaluation.predictions import Predictions
from distcls.engine.performance.bottleneck import Settings
from distcls.engine.performance.device_facts import DeviceFacts
from distcls.engine.ranks.heartbeat import Heartbeat
from distcls.engine.stopping.preemption import StopRequest
from distcls.engine.strategies.strategy import Strategy
from distcls.models.classifier import ImageClassifier
from distcls.optim.ema import Ema
from distcls.optim.schedules import Schedule
from distcls.tracking.console import Console
from distcls.tracking.trackers import Trackers


@dataclass
class Job:
    """What building/build.py makes of a recipe.

    `strategy` holds the wrapped classifier and the optimizer. `learning_rates` are those before the schedule, by the
    names under which they are logged; "optim/lr" is the recipe's.
    """

    accelerator: Accelerator
    classifier: ImageClassifier
    strategy: Strategy
    schedule: Schedule
    ema: Ema | None
    train_loader: TrainLoader
    val_loader: EvalLoader
    trackers: Trackers
    console: Console
    stop: StopRequest
    heart: Heartbeat
    metrics: ClassMetrics | None
    predictions: Predictions | None
    total_steps: int
    steps_per_epoch: int
    global_batch_size: int
    accumulation_steps: int
    seed: int
    log_every_steps: int
    checkpoint_every_steps: int
    evaluate_every_epochs: float
    tta: Literal["flip"] | None
    learning_rates: dict[str, float]
    device_facts: DeviceFacts
    settings: Settings
    samples_before: int = 0  # beside step * global_batch_size: what steps with another batch took more, or less

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world_size(self) -> int:
        return self.accelerator.num_processes

    def position(self, step: int) -> dict[str, float]:
        """The counters of every logged row: `samples` is what the run has seen, `epoch` its place in the recipe."""
        samples = self.samples_before + step * self.global_batch_size
        return {"step": step, "epoch": round(step / self.steps_per_epoch, 6), "samples": samples}

    def log(self, row: dict[str, float]) -> None:
        """Send one row to the trackers and print it."""
        self.trackers.log(row)
        (self.console.val_row if "val/loss" in row else self.console.train_row)(row)

    def evaluation_due(self, step: int) -> bool:
        """At the step nearest to each multiple of `eval.every_epochs` epochs, and from the last step on.

        A resumed run may already be beyond the last step, if its recipe was made shorter.
        """
        period = self.evaluate_every_epochs * self.steps_per_epoch
        nearest = round(step / period)
        return step >= self.total_steps or (nearest > 0 and step == max(1, round(nearest * period)))

    def logging_due(self, step: int) -> bool:
        return step == self.total_steps or step % self.log_every_steps == 0

    def checkpoint_due(self, step: int) -> bool:
        return step == self.total_steps or (step > 0 and step % self.checkpoint_every_steps == 0)
