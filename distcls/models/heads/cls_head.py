"""ClsHead: what every classification head does beyond its layers."""

from collections import Counter
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.common import BaseModule
from distcls.models.heads.topk import topk_counts
from distcls.registry import HEADS, LOSSES

Features = Tensor | tuple[Tensor, ...]


@HEADS.register
class ClsHead(BaseModule):
    """Computes the loss and top-k counts; subclasses add layers and `forward`. Here the features are the logits.

    Follows MMPretrain 1.2, where accuracy needs `cal_acc`; here it is always counted.

    Args:
        loss: block of the loss, or a list of blocks whose losses are added, each with its own loss_weight.
        topk: values of k for the top-k counts.

    Attributes:
        multi_label: an image may have any number of classes; targets are then (N, C) of 0 and 1.

    Raises:
        UserError: no loss, a loss whose reduction is not "mean", or a k below 1.
    """

    multi_label: ClassVar[bool] = False
    num_classes: int  # of heads that have layers
    in_channels: int

    def __init__(
        self,
        loss: Annotated[dict | list[dict], LOSSES] = {"type": "CrossEntropyLoss", "loss_weight": 1.0},  # noqa: B006
        topk: tuple[int, ...] = (1,),
    ) -> None:
        super().__init__()
        blocks = [loss] if isinstance(loss, dict) else loss
        if not blocks:
            raise ArgumentError(f"{type(self).__name__}.loss", "got an empty list, expected one block at least")
        losses = [LOSSES.build(block) for block in blocks]
        self.loss_names = ["loss"] if len(blocks) == 1 else _entries([block["type"] for block in blocks])
        # a single loss keeps the name under which MMPretrain's checkpoints store its buffers
        self.loss_module = losses[0] if len(blocks) == 1 else nn.ModuleList(losses)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise ArgumentError(f"{type(self).__name__}.topk", f"got {self.topk}, expected numbers of at least 1")
        for module in losses:
            if getattr(module, "reduction", "mean") != "mean":
                raise ArgumentError(
                    f"{type(self).__name__}.loss.reduction",
                    f"got {module.reduction!r}, expected 'mean': the head's loss is a mean over images",
                )

    def set_widths(self, num_classes: int, in_channels: int | None) -> None:
        """Check and store both, for the constructors of heads with layers.

        Raises:
            UserError: one of them is not positive.
        """
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if value is None or value <= 0:
                raise ArgumentError(f"{type(self).__name__}.{name}", f"got {value}, expected a positive number")
            setattr(self, name, value)

    def pre_logits(self, x: Features) -> Tensor:
        """The features to classify: `x`, or the last entry of a tuple with one per stage."""
        return x[-1] if isinstance(x, tuple) else x

    def pooled(self, x: Features) -> Tensor:
        """Features (N, C): `x`, or the last entry of a tuple.

        Raises:
            UserError: it is a feature map.
        """
        features = x[-1] if isinstance(x, tuple) else x
        if features.ndim != 2:
            raise ArgumentError(
                type(self).__name__,
                f"got features of shape {tuple(features.shape)}, expected (N, C): "
                "add a neck that pools them, such as neck: {type: GlobalAveragePooling}",
            )
        return features

    def forward(self, x: Features) -> Tensor:
        """Features -> logits (N, C).

        Raises:
            UserError: in this class, which has no layers, the features are a map.
        """
        scores = self.pre_logits(x)
        if scores.ndim != 2:
            raise ArgumentError(
                type(self).__name__,
                f"got features of shape {tuple(scores.shape)}, expected scores (N, C): it has no layers, so the "
                "backbone must classify (LeNet5, AlexNet and VGG do with num_classes); else take LinearClsHead",
            )
        return scores

    def forward_train(self, x: Features, gt_label: Tensor) -> dict[str, Tensor]:
        """Features and labels -> what `loss` returns."""
        return self.loss(self(x), gt_label)

    def loss(self, cls_score: Tensor, gt_label: Tensor) -> dict[str, Tensor]:
        """``{"loss": scalar, "top1": count, ...}``; several losses have an entry each: ``{"loss_FocalLoss": ...}``.

        Args:
            cls_score: logits (N, C).
            gt_label: (N,) class numbers, or (N, C) soft labels.
        """
        return {**self.losses(cls_score, gt_label), **self.counts(cls_score, gt_label)}

    def losses(self, cls_score: Tensor, gt_label: Tensor) -> dict[str, Tensor]:
        """The entries of `loss` that are summed into the objective."""
        modules = self.loss_module if isinstance(self.loss_module, nn.ModuleList) else [self.loss_module]
        # as in MMPretrain, avg_factor divides losses with one term per class by N, too, instead of by N * C
        values = [module(cls_score, gt_label, avg_factor=cls_score.shape[0]) for module in modules]
        return dict(zip(self.loss_names, values, strict=True))

    def counts(self, cls_score: Tensor, gt_label: Tensor) -> dict[str, Tensor]:
        """The entries of `loss` that count correct predictions."""
        return topk_counts(cls_score, gt_label, self.topk)

    def scores(self, cls_score: Tensor) -> Tensor:
        """Logits (N, C) -> probabilities (N, C), in float32 at least."""
        return cls_score.to(torch.promote_types(cls_score.dtype, torch.float32)).softmax(dim=1)

    def decide(self, scores: Tensor) -> Tensor:
        """Probabilities (N, C) -> which classes are predicted (N, C), bool: here the most probable one."""
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.argmax(dim=1, keepdim=True), True)


def _entries(types: list[str]) -> list[str]:
    """Entry names like ``loss_FocalLoss``; repeated types are numbered: ``loss_FocalLoss_2``."""
    seen: Counter[str] = Counter()
    names = []
    for name in types:
        seen[name] += 1
        names.append(f"loss_{name}" if seen[name] == 1 else f"loss_{name}_{seen[name]}")
    return names
