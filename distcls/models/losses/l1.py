"""L1Loss: the absolute difference from another model's scores."""

from torch import Tensor

from distcls.models.losses.loss import Loss
from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import Reduction, weighted_loss
from distcls.registry import LOSSES


@weighted_loss
def l1_loss(pred: Tensor, target: Tensor) -> Tensor:
    """|pred - target| per element, of the same shape."""
    return (pred - target).abs()


@LOSSES.register
class L1Loss(Loss):
    """|score - target|, for targets (N, C) that are a distribution, such as another model's output.

    A class number is taken as a one-hot distribution. Not in MMPretrain: specified by the tutorial in
    docs/add_modules.md.

    Args:
        reduction: over all elements.
        loss_weight: factor of the result.
    """

    def __init__(self, reduction: Reduction = "mean", loss_weight: float = 1.0) -> None:
        super().__init__(reduction, loss_weight)

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        """See `Loss.forward`; here `weight` broadcasts to the scores."""
        target = per_class(target, pred, "L1Loss")
        return l1_loss(pred, target, weight, reduction=reduction, avg_factor=avg_factor)
