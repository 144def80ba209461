"""ClsHead: what every classification head does beyond its layers."""

from typing import Annotated

from torch import Tensor

from distcls.errors import UserError
from distcls.models.common import BaseModule
from distcls.models.heads.topk import topk_counts
from distcls.registry import HEADS, LOSSES

Features = Tensor | tuple[Tensor, ...]


@HEADS.register
class ClsHead(BaseModule):
    """Owns the loss and counts right answers; a subclass adds layers and `forward`. Here the features are the logits.

    Follows MMPretrain 1.2, where accuracy needs `cal_acc`; here it is always counted.

    Args:
        loss: the block of the loss.
        topk: the k of the top-k counts.

    Raises:
        UserError: a loss that does not average, or a k below 1.
    """

    def __init__(
        self,
        loss: Annotated[dict, LOSSES] = {"type": "CrossEntropyLoss", "loss_weight": 1.0},  # noqa: B006
        topk: tuple[int, ...] = (1,),
    ) -> None:
        super().__init__()
        self.loss_module = LOSSES.build(loss)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise UserError(f"{type(self).__name__}.topk: got {self.topk}, expected numbers of at least 1")
        if getattr(self.loss_module, "reduction", "mean") != "mean":
            raise UserError(
                f"{type(self).__name__}.loss.reduction: got {self.loss_module.reduction!r}, expected 'mean': "
                "the head's loss is a mean over images"
            )

    def pre_logits(self, x: Features) -> Tensor:
        """The features that the head classifies: of a tuple with one entry per stage, the last."""
        return x[-1] if isinstance(x, tuple) else x

    def forward(self, x: Features) -> Tensor:
        """Features -> logits (N, C)."""
        return self.pre_logits(x)

    def forward_train(self, x: Features, gt_label: Tensor) -> dict[str, Tensor]:
        """Features and labels -> what `loss` returns."""
        return self.loss(self(x), gt_label)

    def loss(self, cls_score: Tensor, gt_label: Tensor) -> dict[str, Tensor]:
        """``{"loss": scalar, "top1": count, ...}``.

        Args:
            cls_score: logits (N, C).
            gt_label: (N,) class numbers, or (N, C) soft labels.
        """
        # losses with several terms per image are divided by N as well, not by N * C: MMPretrain passes avg_factor
        loss = self.loss_module(cls_score, gt_label, avg_factor=cls_score.shape[0])
        return {"loss": loss, **topk_counts(cls_score, gt_label, self.topk)}
