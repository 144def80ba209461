"""Necks: the features of a backbone -> features for a head, tensor to tensor and tuple to tuple."""

from distcls.models.necks.gap import GlobalAveragePooling

__all__ = ["GlobalAveragePooling"]
