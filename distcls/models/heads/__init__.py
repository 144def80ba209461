"""Heads: features -> logits, and with labels the loss and the counts of correct predictions."""

from distcls.models.heads.arcface_head import ArcFaceClsHead
from distcls.models.heads.cls_head import ClsHead
from distcls.models.heads.deit_head import DeiTClsHead
from distcls.models.heads.linear_head import LinearClsHead
from distcls.models.heads.multi_label_head import MultiLabelClsHead, MultiLabelLinearClsHead
from distcls.models.heads.stacked_head import StackedLinearClsHead
from distcls.models.heads.topk import topk_counts
from distcls.models.heads.vision_transformer_head import VisionTransformerClsHead

__all__ = [
    "ArcFaceClsHead",
    "ClsHead",
    "DeiTClsHead",
    "LinearClsHead",
    "MultiLabelClsHead",
    "MultiLabelLinearClsHead",
    "StackedLinearClsHead",
    "VisionTransformerClsHead",
    "topk_counts",
]
