"""Losses: (pred, target, weight, avg_factor, reduction_override) -> scalar."""

from distcls.models.losses.cross_entropy import (
    CrossEntropyLoss,
    binary_cross_entropy,
    cross_entropy,
    soft_cross_entropy,
)
from distcls.models.losses.l1 import L1Loss, l1_loss
from distcls.models.losses.label_smooth import LabelSmoothLoss
from distcls.models.losses.weighted import weight_reduce_loss, weighted_loss

__all__ = [
    "CrossEntropyLoss",
    "L1Loss",
    "LabelSmoothLoss",
    "binary_cross_entropy",
    "cross_entropy",
    "l1_loss",
    "soft_cross_entropy",
    "weight_reduce_loss",
    "weighted_loss",
]
