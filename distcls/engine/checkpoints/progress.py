"""How far a run is and how good it was: what a checkpoint, a weights file and the last line on the terminal say."""

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run is.

    step: optimizer updates attempted. evaluated: the last step at which an evaluation was completed. best: its means
    and step, by `criterion`. last: the means of the last evaluation.
    """

    step: int = 0
    evaluated: int = 0
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def record(self, means: dict[str, float]) -> None:
        """Take in an evaluation at the present step; an earlier one wins a tie, every number wins over NaN."""
        self.evaluated = self.step
        self.last = dict(means)
        name = criterion(means)
        sign = -1 if name == "loss" else 1
        before = self.best.get(name, math.nan)
        if math.isnan(before) or sign * means[name] > sign * before:
            self.best = {**means, "step": self.step}


def criterion(means: dict[str, float]) -> str:
    """What "best" goes by: top-1; of a head that counts none mAP, if it is measured; else the loss."""
    return next(name for name in ("top1", "map", "loss") if name in means)
