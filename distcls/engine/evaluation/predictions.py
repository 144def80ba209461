"""Collects a model's prediction for every validation image: per-class accuracy, confused pairs, worst mistakes.

Kept on the device, gathered from the ranks once at the end and sorted into the order of the data set: the same scores
give the same result on any number of ranks. An image takes 16 bytes; a batch takes a few small kernels without waiting.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distcls.engine.ranks.collectives import gather_rows

WORST = 64  # number of images of highest loss to keep
GUESSES = 5  # classes that are shown for each of them
SMALLEST = 1e-30  # smallest probability, so that its logarithm is finite


@dataclass(frozen=True)
class Worst:
    """One of the images of highest loss.

    Attributes:
        index: in the data set.
        loss: cross entropy, minus the logarithm of the label's probability; for several labels the mean over classes.
        guesses: the most probable classes and their probabilities, highest first.
    """

    index: int
    loss: float
    guesses: list[tuple[int, float]]


@dataclass(frozen=True)
class Predicted:
    """The predictions of a whole evaluation.

    Attributes:
        best: (N,) predicted class of each image of the data set; None for several labels per image.
        counts: (2, C) for several labels per image: number of correct predictions, and of predictions, per class; else
            None.
        worst: up to WORST images by falling loss; equal ones in the order of the data set.
    """

    best: np.ndarray | None
    counts: np.ndarray | None
    worst: list[Worst]


class Predictions:
    """Collects one evaluation at a time: `start`, `add` for each batch, then `result` on all ranks.

    Args:
        head: its `scores` computes probabilities and its `decide` the predictions. For a head without them softmax is
            applied to the logits, or sigmoid for several labels.
        num_classes: C.
        multi_label: whether an image may have any number of classes.
        device: of the logits.
        world_size: number of ranks.
    """

    def __init__(
        self, *, head: Any, num_classes: int, multi_label: bool, device: torch.device, world_size: int
    ) -> None:
        self._head = head
        self._classes = num_classes
        self._multi_label = multi_label
        self._device = device
        self._world_size = world_size
        self.start()

    def start(self) -> None:
        """Discard what was added before."""
        width = 2 + 2 * min(GUESSES, self._classes)
        # columns: loss, index, probabilities of the guesses, their classes; float64 is exact for every index
        self._worst = torch.full((WORST, width), -torch.inf, dtype=torch.float64, device=self._device)
        self._best: list[Tensor] = []
        self._counts = torch.zeros(2, self._classes, dtype=torch.int64, device=self._device)

    def add(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Add a batch with its padding; every rank adds the same number of batches of the same size.

        Args:
            logits: (N, C).
            target: (N,) class numbers, or (N, C) of 1, 0 and -1 for labels to ignore.
            index: (N,) positions in the data set, -1 for padding.
        """
        # images with NaN count as those of the highest loss
        scores = scores_of(self._head, logits, multi_label=self._multi_label).nan_to_num(nan=0.0)
        index = index.to(self._device, non_blocking=True)
        real = index >= 0
        if self._multi_label:
            known = (target >= 0) & real[:, None]
            decided = self._decided(scores) & known
            self._counts += torch.stack([(decided & (target == 1)).sum(0), decided.sum(0)])
            of_truth = torch.where(target == 1, scores, 1 - scores).clamp(min=SMALLEST).log().where(known, 0)
            loss = -of_truth.sum(1) / known.sum(1).clamp(min=1)
        else:
            self._best.append(torch.stack([index, scores.argmax(dim=1)], dim=1))
            loss = -scores.gather(1, target.clamp(min=0)[:, None])[:, 0].clamp(min=SMALLEST).log()
        guesses = scores.topk(min(GUESSES, self._classes), dim=1)
        columns = [loss[:, None], index[:, None], guesses.values, guesses.indices]
        rows = torch.cat([column.double() for column in columns], dim=1)
        rows[:, 0] = rows[:, 0].where(real, -torch.inf)
        self._worst = _highest(torch.cat([self._worst, rows]))

    def result(self) -> Predicted:
        """The predictions of all images added since `start`. Collective; the same on all ranks."""
        highest = _highest(gather_rows(self._worst, self._world_size)).tolist()
        worst = [_worst(row) for row in highest if row[0] > -torch.inf]
        if self._multi_label:
            counts = gather_rows(self._counts[None], self._world_size).sum(0).cpu().numpy()
            return Predicted(None, counts, worst)
        index, best = gather_rows(torch.cat(self._best), self._world_size).cpu().numpy().T
        order = index.argsort()[(index < 0).sum() :]  # padding comes first
        return Predicted(best[order], None, worst)

    def _decided(self, scores: Tensor) -> Tensor:
        return self._head.decide(scores) if hasattr(self._head, "decide") else scores >= 0.5


def scores_of(head: Any, logits: Tensor, *, multi_label: bool) -> Tensor:
    """Probabilities (N, C), by the head's own rule if it has one."""
    if hasattr(head, "scores"):
        return head.scores(logits)
    return logits.float().sigmoid() if multi_label else logits.float().softmax(dim=1)


def _highest(rows: Tensor) -> Tensor:
    """The WORST rows of highest loss (column 0); among equal ones those of the lowest index (column 1)."""
    rows = rows[rows[:, 1].argsort(stable=True)]
    return rows[rows[:, 0].argsort(descending=True, stable=True)[:WORST]]


def _worst(row: list[float]) -> Worst:
    loss, index, *guesses = row
    half = len(guesses) // 2
    return Worst(
        int(index), loss, [(int(best), score) for score, best in zip(guesses[:half], guesses[half:], strict=True)]
    )
