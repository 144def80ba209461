"""CrossEntropyLoss: softmax, soft-label and sigmoid cross entropy."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distcls.errors import ArgumentError
from distcls.models.losses.loss import Loss
from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import Reduction, weight_reduce_loss
from distcls.registry import LOSSES


def cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    avg_factor: float | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Softmax cross entropy per image: pred (N, C), label (N,) class numbers or (N, C) probabilities, weight (N,).

    With class_weight (C,) "mean" still divides by N (torch's own function divides by the sum of the weights).
    """
    loss = F.cross_entropy(pred, label, weight=class_weight, reduction="none")
    return weight_reduce_loss(loss, weight, reduction, avg_factor)


def soft_cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    avg_factor: float | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Softmax cross entropy per image: pred (N, C), label (N, C) probabilities, weight (N,), class_weight (C,)."""
    loss = -label * F.log_softmax(pred, dim=-1)
    if class_weight is not None:
        loss = loss * class_weight
    return weight_reduce_loss(loss.sum(dim=-1), weight, reduction, avg_factor)


def binary_cross_entropy(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    avg_factor: float | None = None,
    class_weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Sigmoid cross entropy per image and class: pred and label (N, C), weight (N,), class_weight and pos_weight (C,).

    "mean" divides by avg_factor if given, else by N * C.
    """
    label = label.to(torch.promote_types(pred.dtype, torch.float32))  # half-precision scores must not round labels
    loss = F.binary_cross_entropy_with_logits(pred, label, class_weight, pos_weight=pos_weight, reduction="none")
    return weight_reduce_loss(loss, None if weight is None else weight[:, None], reduction, avg_factor)


@LOSSES.register
class CrossEntropyLoss(Loss):
    """Cross entropy of scores (N, C) with class numbers (N,) or a target per class (N, C). Follows MMPretrain 1.2.

    Args:
        use_sigmoid: an independent binary decision per class: targets (N, C) in [0, 1]; a class number means 1 for that
            class and 0 for the others, as in "ResNet strikes back" (Wightman et al. 2021).
        use_soft: targets are probabilities (N, C), or class numbers, as in evaluation and in batches without mixing.
            Kept for MMPretrain's recipes: softmax cross entropy takes both kinds of target without it, too.
        reduction: over the images.
        loss_weight: factor of the result.
        class_weight: factor of each class; auto: from the training set, see `set_class_counts`.
        pos_weight: factor of each class's positives, with use_sigmoid.
        target_threshold: with use_sigmoid, targets above it become 1, all others 0, so that a mixed image has both
            classes. "ResNet strikes back" has 0.2; timm's BinaryCrossEntropy has the same argument.

    Raises:
        UserError: use_sigmoid together with use_soft, pos_weight or target_threshold without use_sigmoid, or a
            target_threshold outside [0, 1).
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_soft: bool = False,
        reduction: Reduction = "mean",
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | Literal["auto"] | None = None,
        pos_weight: Sequence[float] | None = None,
        target_threshold: float | None = None,
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.class_weight: Tensor | None
        self.pos_weight: Tensor | None
        if use_sigmoid and use_soft:
            raise ArgumentError("CrossEntropyLoss", "use_sigmoid and use_soft exclude each other")
        if pos_weight is not None and not use_sigmoid:
            raise ArgumentError(
                "CrossEntropyLoss.pos_weight", "weighs the positives of a sigmoid loss, expected use_sigmoid: true"
            )
        if target_threshold is not None and not use_sigmoid:
            raise ArgumentError(
                "CrossEntropyLoss.target_threshold",
                "makes the targets of a sigmoid loss 0 or 1, expected use_sigmoid: true",
            )
        if target_threshold is not None and not 0 <= target_threshold < 1:
            raise ArgumentError(
                "CrossEntropyLoss.target_threshold", f"got {target_threshold:g}, expected 0 or more and below 1"
            )
        self.use_sigmoid = use_sigmoid
        self.use_soft = use_soft
        self.target_threshold = target_threshold
        # buffers, so that they move to the device with the model; not in the state_dict, as in MMPretrain
        self._auto = class_weight == "auto"
        self.register_buffer("class_weight", _weights(class_weight), persistent=False)
        self.register_buffer("pos_weight", _weights(pos_weight), persistent=False)

    def set_class_counts(self, counts: Sequence[int]) -> None:
        """With `class_weight: auto`, weight classes by the inverse of their number of images; else do nothing.

        The weight of class c is (sum of all counts) / (number of classes that occur x its count), so that the mean
        weight over the images is 1; a class without images gets 0.

        Args:
            counts: training images of each class (C,).
        """
        if self._auto:
            number = torch.as_tensor(counts, dtype=torch.float64)
            weights = number.sum() / ((number > 0).sum() * number)
            assert self.class_weight is not None
            self.class_weight = torch.where(number > 0, weights, 0.0).to(self.class_weight)

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        """See `Loss.forward`.

        Raises:
            UserError: targets of another width than the scores, or not one class weight per class.
        """
        if (self.use_sigmoid or self.use_soft) and target.ndim == 1:
            target = per_class(target, pred, "CrossEntropyLoss")
        self._check(pred, target)
        if self.target_threshold is not None:
            target = (target > self.target_threshold).to(target.dtype)
        arguments = (pred, target, weight, reduction, avg_factor, self.class_weight)
        if self.use_sigmoid:
            return binary_cross_entropy(*arguments, pos_weight=self.pos_weight)
        return soft_cross_entropy(*arguments) if self.use_soft else cross_entropy(*arguments)

    def _check(self, pred: Tensor, target: Tensor) -> None:
        if self._auto and not len(self.class_weight):  # type: ignore[arg-type]
            raise ArgumentError(
                "CrossEntropyLoss.class_weight", "auto needs the training set's counts: set_class_counts"
            )
        if (self.use_sigmoid or self.use_soft) and target.shape != pred.shape:
            option = "use_sigmoid" if self.use_sigmoid else "use_soft"
            raise ArgumentError(
                f"CrossEntropyLoss.{option}",
                f"needs a target per class, got targets {tuple(target.shape)} for scores {tuple(pred.shape)}",
            )
        for name, weights in (("class_weight", self.class_weight), ("pos_weight", self.pos_weight)):
            if weights is not None and len(weights) != pred.shape[1]:
                raise ArgumentError(
                    f"CrossEntropyLoss.{name}",
                    f"got {len(weights)} values, expected one for each of {pred.shape[1]} classes",
                )


def _weights(values: Sequence[float] | Literal["auto"] | None) -> Tensor | None:
    """The weights as a tensor; for "auto", where they are not known yet, an empty one that keeps device and dtype."""
    return None if values is None else torch.tensor([] if values == "auto" else values, dtype=torch.float32)
