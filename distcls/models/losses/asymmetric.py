"""AsymmetricLoss: multi-label loss for many classes of which an image shows few."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from distcls.models.losses.loss import Loss
from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import Reduction, weight_reduce_loss
from distcls.registry import LOSSES


def asymmetric_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    reduction: Reduction = "mean",
    avg_factor: float | None = None,
    use_sigmoid: bool = True,
    eps: float = 1e-8,
) -> Tensor:
    """Loss per image and class, see AsymmetricLoss: pred and target (N, C), weight (N,).

    "mean" divides by avg_factor if given, else by N * C.
    """
    pred = pred.to(target.dtype)
    chance = pred.sigmoid() if use_sigmoid else pred.softmax(dim=-1)
    right = (1 - chance + clip).clamp(max=1) * (1 - target) + chance * target
    # ignored negatives are at 0, where the derivative of x**gamma is infinite for gamma < 1
    miss = (1 - right).clamp(min=torch.finfo(right.dtype).tiny)
    focus = miss ** (gamma_pos * target + gamma_neg * (1 - target))
    loss = -torch.log(right.clamp(min=eps)) * focus
    return weight_reduce_loss(loss, None if weight is None else weight[:, None], reduction, avg_factor)


@LOSSES.register
class AsymmetricLoss(Loss):
    """Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2020. Follows MMPretrain 1.2.

    A FocalLoss with separate exponents for positives and negatives, which ignores negatives with a probability below
    `clip`.

    Args:
        gamma_pos: exponent that down-weights easy positives; the default is 0 here, 1 in `asymmetric_loss`.
        gamma_neg: exponent that down-weights easy negatives.
        clip: negatives with a lower probability cost nothing.
        reduction: over images and classes.
        loss_weight: factor of the result.
        use_sigmoid: independent probabilities per class; false: softmax.
        eps: lower bound of probabilities in the logarithm.
    """

    def __init__(
        self,
        gamma_pos: Annotated[float, Field(ge=0)] = 0.0,
        gamma_neg: Annotated[float, Field(ge=0)] = 4.0,
        clip: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        reduction: Reduction = "mean",
        loss_weight: float = 1.0,
        use_sigmoid: bool = True,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.use_sigmoid = use_sigmoid
        self.eps = eps

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        return asymmetric_loss(
            pred,
            per_class(target, pred, "AsymmetricLoss"),
            weight,
            self.gamma_pos,
            self.gamma_neg,
            self.clip,
            reduction,
            avg_factor,
            self.use_sigmoid,
            self.eps,
        )
