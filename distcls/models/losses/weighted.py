"""weighted_loss: turns a loss per element into the weighted, reduced loss that a Loss returns."""

import functools
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

Reduction = Literal["none", "mean", "sum"]


def weight_reduce_loss(
    loss: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean", avg_factor: float | None = None
) -> Tensor:
    """Weight the elements of a loss and reduce it, as MMPretrain's function of this name does.

    Args:
        loss: one value per element.
        weight: factors that broadcast to `loss`.
        reduction: "none" leaves the elements, "mean" averages, "sum" adds.
        avg_factor: "mean" divides the sum by it instead of by the number of elements; "none" ignores it.

    Raises:
        ValueError: avg_factor with reduction "sum".
    """
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean() if avg_factor is None else loss.sum() / avg_factor
    if avg_factor is not None:
        raise ValueError('avg_factor can not be used with reduction="sum"')
    return loss.sum()


def weighted_loss(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator that adds the arguments of weight_reduce_loss to a loss per element, a function of (pred, target).

    Example: ``l1_loss = weighted_loss(lambda pred, target: (pred - target).abs())`` is called as
    ``l1_loss(pred, target, weight=None, reduction="mean", avg_factor=None)``. Other keywords are passed on.
    """

    @functools.wraps(loss_func)
    def wrapper(
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
        avg_factor: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return weight_reduce_loss(loss_func(pred, target, **kwargs), weight, reduction, avg_factor)

    return wrapper
