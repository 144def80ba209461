"""Precision, recall, F1, average precision and calibration error from counts and scores; pure functions.

torchmetrics' macro averages leave out classes that never occur, in MMPretrain 1.2 they count 0, as here; its average
precision takes one class after the other; its calibration error gives images of confidence 1, which float32 often comes
to, a bin of their own. Tests compare what is computed here with both.
"""

import math

import numpy as np
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
    A score that is NaN counts as 0.

    Args:
        scores: probabilities (N, C).
        target: (N, C) of 1, 0, and -1 for what is not to count.

    Returns:
        float64.
    """
    return torch.tensor(
        [
            _area(score[truth >= 0], score[truth == 1])
            for score, truth in zip(scores.nan_to_num(nan=0.0).T.numpy(), target.T.numpy(), strict=True)
        ],
        dtype=torch.float64,
    )


def _area(scores: np.ndarray, right: np.ndarray) -> float:
    """The mean, over the images of a class, of the precision among those that score as high or higher.

    Args:
        scores: (N,) of all images. right: (n,) of those of the class.
    """
    if not len(right):
        return 0.0
    # Values alone are sorted several times faster than values with their places, and the few of the class suffice.
    scores, right = np.sort(scores), np.sort(right)
    as_high = (len(of) - np.searchsorted(of, right) for of in (right, scores))
    return float(np.mean(np.divide(*as_high)))


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
