"""Precision, recall, F1, average precision and calibration error from counts and scores; pure functions.

torchmetrics computes what it agrees on with MMPretrain 1.2. Its macro averages leave out classes that never occur, in
MMPretrain's they count 0; so what is averaged over classes is averaged here. Its calibration error gives images of
confidence 1, which float32 often comes to, a bin of their own; so that one is computed here, too.
"""

import math

import torch
from torch import Tensor

BINS = 15  # of the calibration error, as in its paper


def precision_recall_f1(right: Tensor, predicted: Tensor, actual: Tensor) -> dict[str, Tensor]:
    """Precision, recall and their harmonic mean, float64, where nothing was predicted or there is nothing to find 0.

    Args:
        right: images predicted as the class and of it, per class (C,) or over all (). predicted, actual: alike.
    """
    precision = right.double() / predicted.clamp(min=1)
    recall = right.double() / actual.clamp(min=1)
    f1 = 2 * right.double() / (predicted + actual).clamp(min=1)
    return {"precision": precision, "recall": recall, "f1": f1}


def average_precision(scores: Tensor, target: Tensor) -> Tensor:
    """Area under each class's precision-recall curve (C,); 0 for a class without positives.

    Images of equal score share one point of the curve, so that their order does not matter (in MMPretrain it does).
    A score that is NaN counts as 0: torchmetrics would rank it above all others.

    Args:
        scores: probabilities (N, C).
        target: (N, C) of 1, 0, and -1 for what is not to count.
    """
    from torchmetrics.functional.classification import binary_average_precision  # two seconds to import

    # class by class: torchmetrics' own function for many refuses one, warns of a class without positives and gives NaN
    areas = [
        binary_average_precision(score, truth.long(), ignore_index=-1) if (truth == 1).any() else score.new_zeros(())
        for score, truth in zip(scores.nan_to_num(nan=0.0).T, target.T, strict=True)
    ]
    return torch.stack(areas)


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: how far confidence and accuracy are apart, in the mean over BINS equal bins.

    Guo et al., "On Calibration of Modern Neural Networks", 2017: a bin holds its upper edge. NaN of what holds NaN.

    Args:
        confidence: probabilities (N,) of what was predicted. right: (N,) whether it was so.
    """
    if not len(confidence) or confidence.isnan().any():
        return math.nan
    confidence = confidence.double()
    bins = (confidence * BINS).ceil().clamp(1, BINS).long() - 1
    surplus = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - right.double())
    return surplus.abs().sum().item() / len(confidence)
