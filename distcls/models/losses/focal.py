"""FocalLoss: sigmoid cross entropy that down-weights easy examples."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distcls.models.losses.loss import Loss
from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import Reduction, weight_reduce_loss
from distcls.registry import LOSSES


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: Reduction = "mean",
    avg_factor: float | None = None,
) -> Tensor:
    """Loss per image and class, see FocalLoss: pred and target (N, C), weight (N,).

    "mean" divides by avg_factor if given, else by N * C.
    """
    pred = pred.to(target.dtype)
    chance = pred.sigmoid()
    miss = (1 - chance) * target + chance * (1 - target)
    # at 0 the derivative of x**gamma is infinite for gamma < 1
    focus = (alpha * target + (1 - alpha) * (1 - target)) * miss.clamp(min=torch.finfo(miss.dtype).tiny) ** gamma
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * focus
    return weight_reduce_loss(loss, None if weight is None else weight[:, None], reduction, avg_factor)


@LOSSES.register
class FocalLoss(Loss):
    """Lin et al., "Focal Loss for Dense Object Detection", 2017, with a sigmoid per class. Follows MMPretrain 1.2.

    With p the probability of the true answer (class present or absent), each image and class costs
    ``-alpha_t (1 - p)^gamma log p``.

    Args:
        gamma: exponent that down-weights easy examples; 0 is cross entropy weighted by alpha.
        alpha: weight of the positives; that of the negatives is 1 - alpha.
        reduction: over images and classes.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        gamma: Annotated[float, Field(ge=0)] = 2.0,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.25,
        reduction: Reduction = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.gamma = gamma
        self.alpha = alpha

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        target = per_class(target, pred, "FocalLoss")
        return sigmoid_focal_loss(pred, target, weight, self.gamma, self.alpha, reduction, avg_factor)
