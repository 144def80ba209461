"""MultiLabelClsHead, MultiLabelLinearClsHead: an independent binary decision for each class."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from distcls.models.heads.cls_head import ClsHead
from distcls.models.heads.linear_head import LinearClsHead
from distcls.registry import HEADS, LOSSES


@HEADS.register
class MultiLabelClsHead(ClsHead):
    """A ClsHead for images with any number of classes: targets (N, C) of 0 and 1. Follows MMPretrain 1.2.

    Args:
        loss: block of the loss, or a list of blocks whose losses are added, each with its own loss_weight.
        thr: classes with at least this probability are predicted; 0.5 if neither thr nor topk is set.
        topk: without thr, the k most probable classes are predicted.
    """

    multi_label: ClassVar[bool] = True

    def __init__(
        self,
        loss: Annotated[dict | list[dict], LOSSES] = {"type": "CrossEntropyLoss", "use_sigmoid": True},  # noqa: B006
        thr: Annotated[float, Field(ge=0, le=1)] | None = None,
        topk: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        super().__init__(loss=loss)
        self.thr = 0.5 if thr is None and topk is None else thr
        self.topk = () if topk is None else (topk,)

    def counts(self, cls_score: Tensor, gt_label: Tensor) -> dict[str, Tensor]:
        """Empty: there is no single correct class. See the recipe's eval.metrics."""
        return {}

    def scores(self, cls_score: Tensor) -> Tensor:
        """Logits (N, C) -> independent probabilities (N, C), in float32 at least."""
        return cls_score.to(torch.promote_types(cls_score.dtype, torch.float32)).sigmoid()

    def decide(self, scores: Tensor) -> Tensor:
        """Probabilities (N, C) -> which classes are predicted (N, C), bool: any number of them."""
        if self.thr is not None:
            return scores >= self.thr
        best = scores.topk(self.topk[0], dim=1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


@HEADS.register
class MultiLabelLinearClsHead(LinearClsHead, MultiLabelClsHead):
    """LinearClsHead's layer with MultiLabelClsHead's loss and predictions. Follows MMPretrain 1.2."""
