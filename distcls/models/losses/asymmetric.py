"""AsymmetricLoss: for many classes of which an image shows few."""

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
    """Per image and class: pred and target (N, C), weight (N,). See AsymmetricLoss.

    "mean" divides by N * C, or with avg_factor by that alone.
    """
    pred = pred.to(target.dtype)
    chance = pred.sigmoid() if use_sigmoid else pred.softmax(dim=-1)
    right = (1 - chance + clip).clamp(max=1) * (1 - target) + chance * target
    # at 0, where all forgotten negatives are, the derivative of a power below 1 is infinite
    miss = (1 - right).clamp(min=torch.finfo(right.dtype).tiny)
    focus = miss ** (gamma_pos * target + gamma_neg * (1 - target))
    loss = -torch.log(right.clamp(min=eps)) * focus
    return weight_reduce_loss(loss, None if weight is None else weight[:, None], reduction, avg_factor)


@LOSSES.register
class AsymmetricLoss(Loss):
    """Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2020. Follows MMPretrain 1.2.

    A FocalLoss with an exponent of its own for positives and negatives, which forgets negatives below `clip` whole.

    Args:
        gamma_pos: how much less an easy positive counts; the class's default is 0, the function's 1.
        gamma_neg: how much less an easy negative counts.
        clip: negatives with a lower probability cost nothing.
        reduction: over images and classes.
        loss_weight: factor of the result.
        use_sigmoid: a probability per class; with false, softmax's.
        eps: lowest probability whose logarithm is taken.
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
