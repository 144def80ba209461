"""Precision, recall, F1, average precision and calibration error from counts and scores; pure functions.

torchmetrics computes what it agrees on with MMPretrain 1.2. Its macro averages leave out classes that never occur, in
MMPretrain's they count 0; so what is averaged over classes is averaged here.
"""

import torch
from torch import Tensor


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

    Args:
        scores: probabilities (N, C).
        target: (N, C) of 1, 0, and -1 for what is not to count.
    """
    from torchmetrics.functional.classification import binary_average_precision  # two seconds to import

    # class by class: torchmetrics' own function for many refuses one, warns of a class without positives and gives NaN
    areas = [
        binary_average_precision(score, truth.long(), ignore_index=-1) if (truth == 1).any() else score.new_zeros(())
        for score, truth in zip(scores.T, target.T, strict=True)
    ]
    return torch.stack(areas)


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: how far confidence and accuracy are apart, in the mean over 15 equal bins.

    Guo et al., "On Calibration of Modern Neural Networks", 2017.

    Args:
        confidence: probabilities (N,) of what was predicted. right: (N,) whether it was so.
    """
    from torchmetrics.functional.classification import binary_calibration_error  # two seconds to import

    return binary_calibration_error(confidence, right.long(), n_bins=15, norm="l1").item()
