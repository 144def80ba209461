"""L1Loss: the absolute difference from another model's scores."""

from torch import Tensor, nn

from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import Reduction, weighted_loss
from distcls.registry import LOSSES


@weighted_loss
def l1_loss(pred: Tensor, target: Tensor) -> Tensor:
    """|pred - target| per element, of the same shape."""
    return (pred - target).abs()


@LOSSES.register
class L1Loss(nn.Module):
    """|score - target|, for targets (N, C) that are a distribution, such as another model's output.

    A class number counts as the distribution that is 1 there. Not in MMPretrain: its specification is the tutorial,
    docs/add_modules.md.

    Args:
        reduction: over all elements.
        loss_weight: factor of the result.
    """

    def __init__(self, reduction: Reduction = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """Scores (N, C), targets (N,) or (N, C), weight that broadcasts to the scores -> the loss, reduced.

        Raises:
            UserError: targets (N, C) of another shape than the scores.
            ValueError: avg_factor with reduction "sum".
        """
        reduction = reduction_override or self.reduction
        target = per_class(target, pred, "L1Loss")
        return self.loss_weight * l1_loss(pred, target, weight, reduction=reduction, avg_factor=avg_factor)
