"""Necks: the features of a backbone -> features for a head, tensor to tensor and tuple to tuple."""

from distcls.models.necks.gap import GlobalAveragePooling
from distcls.models.necks.gem import GeneralizedMeanPooling
from distcls.models.necks.linear_neck import LinearNeck

__all__ = ["GeneralizedMeanPooling", "GlobalAveragePooling", "LinearNeck"]
