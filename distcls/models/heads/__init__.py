"""Heads: features -> logits, and with labels the loss and the counts of right answers."""

from distcls.models.heads.cls_head import ClsHead
from distcls.models.heads.linear_head import LinearClsHead
from distcls.models.heads.topk import topk_counts

__all__ = ["ClsHead", "LinearClsHead", "topk_counts"]
