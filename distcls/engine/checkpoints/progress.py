"""How far a run has got, and its results so far; kept in checkpoints and reported in the end."""

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        step: optimizer updates attempted.
        evaluated: the last step whose evaluation was completed.
        best: means and step of the best evaluation, by `criterion`.
        last: means of the last evaluation.
    """

    step: int = 0
    evaluated: int = 0
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def record(self, means: dict[str, float]) -> None:
        """Record an evaluation at the current step. The earlier one wins a tie; any number beats NaN."""
        self.evaluated = self.step
        self.last = dict(means)
        name = criterion(means)
        sign = -1 if name == "loss" else 1
        before = self.best.get(name, math.nan)
        if math.isnan(before) or sign * means[name] > sign * before:
            self.best = {**means, "step": self.step}


def criterion(means: dict[str, float]) -> str:
    """The metric that defines "best": top-1; mAP if the head has no top-1 and mAP is measured; else the loss."""
    return next(name for name in ("top1", "map", "loss") if name in means)
