"""Learning-rate schedules: pure functions of the step, so that a resumed run continues at the right rate.

A schedule is called with the 0-based index of an optimizer update and returns the factor for every group's base rate.
It keeps no state.
"""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from distcls.errors import ArgumentError
from distcls.registry import SCHEDULES

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Schedule:
    """A linear warm-up from `warmup_start_factor` to 1, followed by the subclass's `decay`.

    Args:
        warmup_epochs, warmup_steps: how long the warm-up lasts; at most one of the two.
        warmup_start_factor: the factor of the first update.
        by_epoch: change the factor only at the beginning of an epoch, as torchvision's references and timm do.
        total_steps, steps_per_epoch: of the run; supplied by the builder.
    """

    def __init__(
        self,
        *,
        warmup_epochs: NonNegative = 0.0,
        warmup_steps: Annotated[int, Field(ge=0)] | None = None,
        warmup_start_factor: Fraction = 0.01,
        by_epoch: bool = False,
        total_steps: int,
        steps_per_epoch: int,
    ) -> None:
        if warmup_steps is not None and warmup_epochs:
            raise ArgumentError("schedule", "warmup_epochs and warmup_steps are both set: keep one of them")
        self.warmup_steps = warmup_steps or round(warmup_epochs * steps_per_epoch)
        self.warmup_start_factor = warmup_start_factor
        self.by_epoch = by_epoch
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        if self.warmup_steps > total_steps:
            raise ArgumentError(
                "schedule",
                f"the warm-up lasts {self.warmup_steps} steps and the whole run {total_steps}: "
                "shorten the warm-up or train longer",
            )

    def __call__(self, step: int) -> float:
        if self.by_epoch:
            step -= step % self.steps_per_epoch
        if step < self.warmup_steps:
            return self.warmup_start_factor + (1 - self.warmup_start_factor) * step / self.warmup_steps
        return self.decay(step)

    def decay(self, step: int) -> float:
        """The factor at `step`, after the warm-up."""
        raise NotImplementedError


@SCHEDULES.register
class CosineWarmup(Schedule):
    """Half a cosine from 1 to `end_factor` (SGDR without restarts, Loshchilov & Hutter 2017).

    Args:
        end_factor: the factor at the end.
        under_warmup: the cosine spans the whole run and the warm-up replaces its beginning, as in timm; else it begins
            at 1 where the warm-up ends.
    """

    def __init__(self, *, end_factor: Fraction = 0.0, under_warmup: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.end_factor = end_factor
        self.start = 0 if under_warmup else self.warmup_steps

    def decay(self, step: int) -> float:
        progress = (step - self.start) / max(1, self.total_steps - self.start)
        return self.end_factor + (1 - self.end_factor) * 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULES.register
class LinearWarmup(Schedule):
    """A straight line from 1 to `end_factor`, updated every step (with a warm-up, the triangle of ffcv-imagenet)."""

    def __init__(self, *, end_factor: Fraction = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.end_factor = end_factor

    def decay(self, step: int) -> float:
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 1 + (self.end_factor - 1) * progress


@SCHEDULES.register
class StepWarmup(Schedule):
    """Multiplies by `gamma` at each milestone (He et al. 2015); milestones are epochs, also fractional ones."""

    def __init__(self, *, milestones: Sequence[float], gamma: Positive = 0.1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.milestones = sorted(round(epoch * self.steps_per_epoch) for epoch in milestones)
        self.gamma = gamma

    def decay(self, step: int) -> float:
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


@SCHEDULES.register
class ExponentialWarmup(Schedule):
    """Multiplies by `gamma` every `every_epochs` epochs (torch's StepLR, with which MobileNets are trained)."""

    def __init__(self, *, gamma: Positive, every_epochs: Positive = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.gamma = gamma
        self.every_steps = max(1, round(every_epochs * self.steps_per_epoch))

    def decay(self, step: int) -> float:
        return self.gamma ** (step // self.every_steps)
