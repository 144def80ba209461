"""SeesawLoss: softmax cross entropy that keeps frequent classes from suppressing rare ones."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distcls.errors import ArgumentError
from distcls.models.losses.loss import Loss
from distcls.models.losses.weighted import Reduction, weight_reduce_loss
from distcls.registry import LOSSES


@LOSSES.register
class SeesawLoss(Loss):
    """Wang et al., "Seesaw Loss for Long-Tailed Instance Segmentation", 2020. Follows MMPretrain 1.2.

    For an image of class i, the logarithm of a factor is added to the score of every other class j: below 1 if j has
    been rarer than i so far (mitigation), above 1 if j scores higher than i (compensation).

    Args:
        num_classes: as the head's.
        p: exponent of the ratio of samples seen; 0 disables mitigation.
        q: exponent of the ratio of probabilities; 0 disables compensation.
        eps: lower bound of the label's probability in that ratio.
        reduction: over the images.
        loss_weight: factor of the result.

    `cum_samples` (C,), in the state_dict, counts the training images of each class, on every rank only its own.
    """

    cum_samples: Tensor

    def __init__(
        self,
        num_classes: Annotated[int, Field(gt=0)],
        p: float = 0.8,
        q: float = 2.0,
        eps: float = 1e-2,
        reduction: Reduction = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.num_classes = num_classes
        self.p = p
        self.q = q
        self.eps = eps
        self.register_buffer("cum_samples", torch.zeros(num_classes))

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        """Here `target` is class numbers (N,).

        Raises:
            UserError: soft labels, or scores of another number of classes.
        """
        if target.ndim != 1:
            raise ArgumentError("SeesawLoss", f"got targets {tuple(target.shape)}, expected class numbers (N,)")
        if pred.shape[1] != self.num_classes:
            raise ArgumentError("SeesawLoss.num_classes", f"got {self.num_classes}, but the head has {pred.shape[1]}")
        if self.training:
            # sums of one-hot labels, unlike bincount, do not depend on the order of additions on a GPU either
            self.cum_samples += F.one_hot(target, self.num_classes).sum(0)
        others = 1 - F.one_hot(target, self.num_classes).to(pred.dtype)
        loss = F.cross_entropy(pred + self._factor(pred, target).log() * others, target, reduction="none")
        return weight_reduce_loss(loss, weight, reduction, avg_factor)

    def _factor(self, pred: Tensor, label: Tensor) -> Tensor:
        """(N, C): mitigation times compensation of each class relative to the image's label."""
        seen = self.cum_samples.clamp(min=1)
        mitigation = (seen / seen[label][:, None]).clamp(max=1) ** self.p
        chance = pred.detach().softmax(dim=1)
        label_chance = chance.gather(1, label[:, None]).clamp(min=self.eps)
        return mitigation * (chance / label_chance).clamp(min=1) ** self.q
