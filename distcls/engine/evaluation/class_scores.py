"""Precision, recall, F1, average precision and calibration error from counts and scores; pure functions.

Why not torchmetrics: its macro averages leave out classes that never occur (MMPretrain 1.2 counts them as 0, as here);
its average precision handles the classes one by one; its calibration error puts images of confidence 1, which is common
in float32, into a bin of their own. Tests compare these functions with both libraries.
"""

import math

import numpy as np
import torch
from torch import Tensor

BINS = 15  # of the calibration error, as in the paper


def precision_recall_f1(right: Tensor, predicted: Tensor, actual: Tensor) -> dict[str, Tensor]:
    """Precision, recall and their harmonic mean, float64; 0 where their denominator is 0.

    Args:
        right: number of correctly predicted images, per class (C,) or in total ().
        predicted, actual: number of images predicted as the class, and of images of the class; same shape.
    """
    precision = right.double() / predicted.clamp(min=1)
    recall = right.double() / actual.clamp(min=1)
    f1 = 2 * right.double() / (predicted + actual).clamp(min=1)
    return {"precision": precision, "recall": recall, "f1": f1}


def average_precision(scores: Tensor, target: Tensor) -> Tensor:
    """Area under each class's precision-recall curve (C,); 0 for a class without positives.

    Images of equal score share one point of the curve, so that their order does not matter (unlike in MMPretrain).
    A score of NaN counts as 0.

    Args:
        scores: probabilities (N, C).
        target: (N, C) of 1, 0, and -1 for labels to ignore.

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
    """The mean, over the images of a class, of the precision among all images that score at least as high.

    Args:
        scores: (N,) of all images.
        right: (n,) of the images of the class.
    """
    if not len(right):
        return 0.0
    # Sorting values alone is several times faster than sorting them with their indices.
    scores, right = np.sort(scores), np.sort(right)
    as_high = (len(of) - np.searchsorted(of, right) for of in (right, scores))
    return float(np.mean(np.divide(*as_high)))


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: the mean difference of confidence and accuracy over BINS equal bins.

    Guo et al., "On Calibration of Modern Neural Networks", 2017: bins include their upper edge. NaN if a confidence is.

    Args:
        confidence: (N,) probabilities of the predictions.
        right: (N,) whether they are correct.
    """
    if not len(confidence) or confidence.isnan().any():
        return math.nan
    confidence = confidence.double()
    bins = (confidence * BINS).ceil().clamp(1, BINS).long() - 1
    surplus = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - right.double())
    return surplus.abs().sum().item() / len(confidence)
