"""LabelSmoothLoss: cross entropy with label smoothing."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from distcls.errors import ArgumentError
from distcls.models.losses.cross_entropy import CrossEntropyLoss
from distcls.models.losses.loss import Loss
from distcls.models.losses.targets import per_class
from distcls.models.losses.weighted import Reduction
from distcls.registry import LOSSES


@LOSSES.register
class LabelSmoothLoss(Loss):
    """Szegedy et al., "Rethinking the Inception Architecture", 2015, section 7. Follows MMPretrain 1.2.

    With eps = label_smooth_val and one-hot label y over K classes, the target is, by `mode`:

    * original: (1 - eps) y + eps / K
    * classy_vision: the same with eps / (1 + eps) for eps, as in ClassyVision
    * multi_label: 1 - eps for the positives, eps for the others

    Args:
        label_smooth_val: eps, 0 <= eps < 1.
        num_classes: K, to check the scores' width against; None: no check.
        use_sigmoid: sigmoid instead of softmax cross entropy; None: only in mode multi_label.
        mode: as above.
        reduction, loss_weight, class_weight: as CrossEntropyLoss's.

    Raises:
        UserError: label_smooth_val out of range, or mode multi_label with use_sigmoid false.
    """

    def __init__(
        self,
        label_smooth_val: float,
        num_classes: int | None = None,
        use_sigmoid: bool | None = None,
        mode: Literal["original", "classy_vision", "multi_label"] = "original",
        reduction: Reduction = "mean",
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | Literal["auto"] | None = None,
    ) -> None:
        super().__init__(reduction, loss_weight)
        if not 0 <= label_smooth_val < 1:
            raise ArgumentError("LabelSmoothLoss.label_smooth_val", f"got {label_smooth_val}, expected 0 <= value < 1")
        if mode == "multi_label" and use_sigmoid is False:
            raise ArgumentError("LabelSmoothLoss.use_sigmoid", "got False, but mode multi_label is a sigmoid loss")
        use_sigmoid = mode == "multi_label" if use_sigmoid is None else use_sigmoid
        self.num_classes = num_classes
        self.mode = mode
        self.eps = label_smooth_val / (1 + label_smooth_val) if mode == "classy_vision" else label_smooth_val
        self.ce = CrossEntropyLoss(
            use_sigmoid=use_sigmoid,
            use_soft=not use_sigmoid,
            class_weight=class_weight,
        )

    def smooth_label(self, label: Tensor, cls_score: Tensor) -> Tensor:
        """Labels (N,) class numbers or (N, C) scores -> smoothed (N, C), in float32 at least."""
        one_hot = per_class(label, cls_score, "LabelSmoothLoss")
        if self.mode == "multi_label":
            return torch.full_like(one_hot, self.eps).masked_fill_(one_hot > 0, 1 - self.eps)
        return one_hot * (1 - self.eps) + self.eps / cls_score.shape[1]

    def reduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, avg_factor: float | None
    ) -> Tensor:
        """See `Loss.forward`.

        Raises:
            UserError: the scores' width is not num_classes.
        """
        if self.num_classes not in (None, pred.shape[1]):
            raise ArgumentError(
                "LabelSmoothLoss.num_classes", f"got {self.num_classes}, but the head has {pred.shape[1]}"
            )
        try:
            return self.ce(pred, self.smooth_label(target, pred), weight, avg_factor, reduction)
        except ArgumentError as error:  # name this class, as the recipe does; it has the same argument
            raise ArgumentError(error.place.replace("CrossEntropyLoss", "LabelSmoothLoss"), error.reason) from error
