"""Losses: (pred, target, weight, avg_factor, reduction_override) -> scalar."""

from distcls.models.losses.asymmetric import AsymmetricLoss, asymmetric_loss
from distcls.models.losses.cross_entropy import (
    CrossEntropyLoss,
    binary_cross_entropy,
    cross_entropy,
    soft_cross_entropy,
)
from distcls.models.losses.focal import FocalLoss, sigmoid_focal_loss
from distcls.models.losses.l1 import L1Loss, l1_loss
from distcls.models.losses.label_smooth import LabelSmoothLoss
from distcls.models.losses.loss import Loss
from distcls.models.losses.seesaw import SeesawLoss
from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import weight_reduce_loss, weighted_loss

__all__ = [
    "AsymmetricLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "L1Loss",
    "LabelSmoothLoss",
    "Loss",
    "SeesawLoss",
    "asymmetric_loss",
    "binary_cross_entropy",
    "cross_entropy",
    "l1_loss",
    "per_class",
    "sigmoid_focal_loss",
    "soft_cross_entropy",
    "weight_reduce_loss",
    "weighted_loss",
]
