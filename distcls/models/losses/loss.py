"""Loss: what all losses share besides their formula."""

from torch import Tensor, nn

from distcls.models.losses.weighted import Reduction


class Loss(nn.Module):
    """(pred, target, weight, avg_factor, reduction_override) -> the loss; subclasses implement `reduced`.

    Args:
        reduction: over the elements of the loss: images, or images and classes.
        loss_weight: factor of the result.
    """

    def __init__(self, reduction: Reduction, loss_weight: float) -> None:
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
        """Scores (N, C) and targets (N,) or (N, C) -> the loss, a scalar unless the reduction is "none".

        Args:
            weight: a factor for each image (N,).
            avg_factor: "mean" divides the sum by it instead of by the number of losses.
            reduction_override: used instead of the constructor's.

        Raises:
            UserError: targets that this loss does not support.
            ValueError: avg_factor with reduction "sum".
        """
        reduction = reduction_override or self.reduction
        return self.loss_weight * self.reduced(pred, target, weight, reduction, avg_factor)

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        """The loss before `loss_weight` is applied; arguments and errors as in `forward`."""
        raise NotImplementedError
