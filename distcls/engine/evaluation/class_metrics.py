"""The metrics of the recipe's `eval.metrics`: per class, and exact over ranks.

Counts are integers that are summed over the ranks. Metrics that need the scores of all images at once (mAP,
calibration) gather them and sort them into the order of the data set, so that the same scores give the same bits on any
number of ranks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distcls.engine.evaluation.class_scores import average_precision, calibration_error, precision_recall_f1
from distcls.engine.ranks.collectives import gather_rows
from distcls.engine.ranks.reduction import SumOverRanks
from distcls.models.heads import ClsHead

COUNTED = ("precision", "recall", "f1")


class ClassMetrics:
    """Collects one evaluation at a time: `start`, `add` for each batch, then `result` on all ranks.

    Args:
        names: of `eval.metrics`: precision, recall, f1, confusion, calibration, map.
        head: computes probabilities and, for several labels per image, decisions.
        class_names: by class number.
        device: of the logits.
        world_size: number of ranks.

    Attributes:
        per_class: JSON-able, from the last `result`: a row for each class, and the confusion matrix if requested.
    """

    def __init__(
        self, names: Sequence[str], *, head: ClsHead, class_names: list[str], device: torch.device, world_size: int
    ) -> None:
        self._names = list(names)
        self._head = head
        self._class_names = class_names
        self._device = device
        self._world_size = world_size
        self.per_class: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        """Discard what was added before."""
        classes = len(self._class_names)
        # for each class the number of images: correctly predicted, predicted, with the label, without the label
        self._counts = torch.zeros(4, classes, dtype=torch.int64, device=self._device)
        pairs = classes**2 if "confusion" in self._names and not self._head.multi_label else 0
        self._pairs = torch.zeros(pairs, dtype=torch.int64, device=self._device)
        self._index: list[Tensor] = []
        self._rows: dict[str, list[tuple[Tensor, Tensor]]] = {"map": [], "calibration": []}

    def add(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Add a batch with its padding; every rank adds the same number of batches of the same size.

        Args:
            logits: (N, C).
            target: (N,) class numbers, or (N, C) of 1, 0 and -1 for labels to ignore.
            index: (N,) positions in the data set, -1 for padding.
        """
        scores = self._head.scores(logits)
        index = index.to(self._device, non_blocking=True)
        real = index >= 0
        classes = scores.shape[1]
        truth = target if target.ndim == 2 else F.one_hot(target.clamp(min=0), classes)
        truth = truth.to(torch.int8).where(real[:, None], -1)
        best = scores.argmax(dim=1)
        decided = self._head.decide(scores) & (truth >= 0)
        self._counts += torch.stack([one.sum(0) for one in (decided & (truth == 1), decided, truth == 1, truth == 0)])
        if len(self._pairs):
            self._pairs += torch.bincount((target * classes + best)[real], minlength=len(self._pairs))
        self._index.append(index)
        if "map" in self._names:
            self._rows["map"].append((scores, truth))
        if "calibration" in self._names and self._head.multi_label:
            self._rows["calibration"].append((scores, truth))
        elif "calibration" in self._names:
            hit = truth.gather(1, best[:, None])
            self._rows["calibration"].append((scores.gather(1, best[:, None]), hit))

    def result(self) -> dict[str, float]:
        """The means for the evaluation's row; the rest goes to `per_class`. The same on all ranks."""
        counts = SumOverRanks(self._counts, self._world_size).result().cpu()
        right, predicted, actual, others = counts
        whole: dict[str, float] = {}
        columns: dict[str, list[Any]] = {"name": self._class_names, "support": actual.tolist()}
        if set(COUNTED) & set(self._names):
            each = precision_recall_f1(right, predicted, actual)
            over_all = precision_recall_f1(right.sum(), predicted.sum(), actual.sum())
            for name in [name for name in COUNTED if name in self._names]:
                whole[name], whole[f"{name}_micro"] = each[name].mean().item(), over_all[name].item()
                columns[name] = each[name].tolist()
        if "map" in self._names:
            precision = average_precision(*self._gathered("map"))
            whole["map"] = precision.mean().item()
            columns["ap"] = precision.tolist()
        if "calibration" in self._names:
            confidence, hit = (values.flatten() for values in self._gathered("calibration"))
            whole["ece"] = calibration_error(confidence[hit >= 0], hit[hit >= 0])
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        self.per_class = {"classes": rows}
        if "confusion" in self._names:
            self.per_class["confusion"] = self._confusion(right, predicted, actual, others)
        self.start()
        return whole

    def _confusion(self, right: Tensor, predicted: Tensor, actual: Tensor, others: Tensor) -> list:
        """Image counts by [class][predicted class]; with several labels, for each class by [has it][predicted]."""
        if not self._head.multi_label:
            pairs = SumOverRanks(self._pairs, self._world_size).result()
            return pairs.view(len(right), len(right)).tolist()
        wrong = predicted - right
        both = torch.stack([torch.stack([others - wrong, wrong]), torch.stack([actual - right, right])])
        return both.permute(2, 0, 1).tolist()

    def _gathered(self, kind: str) -> tuple[Tensor, Tensor]:
        """Scores and targets of all ranks, on the CPU and in the order of the data set."""
        scores, truth = zip(*self._rows[kind], strict=True)
        index = self._from_all_ranks(self._index)
        order = index.argsort()[(index < 0).sum() :]  # padding comes first
        return self._from_all_ranks(scores)[order], self._from_all_ranks(truth)[order]

    def _from_all_ranks(self, batches: Sequence[Tensor]) -> Tensor:
        return gather_rows(torch.cat(list(batches)), self._world_size).cpu()
