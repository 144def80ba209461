"""What the train loop works with: everything that a recipe asks for, built and ready."""

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
    """Everything that the train loop uses, built and ready. `strategy` has the wrapped classifier and the optimizer."""

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
        """One row to the trackers and to the person at the terminal."""
        self.trackers.log(row)
        (self.console.val_row if "val/loss" in row else self.console.train_row)(row)

    def evaluation_due(self, step: int) -> bool:
        """After each `eval.every_epochs` epochs, at the nearest step, and at the end; beyond it where it moved."""
        period = self.evaluate_every_epochs * self.steps_per_epoch
        nearest = round(step / period)
        return step >= self.total_steps or (nearest > 0 and step == max(1, round(nearest * period)))

    def logging_due(self, step: int) -> bool:
        return step == self.total_steps or step % self.log_every_steps == 0

    def checkpoint_due(self, step: int) -> bool:
        return step == self.total_steps or (step > 0 and step % self.checkpoint_every_steps == 0)
