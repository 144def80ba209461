"""Weights of other runs and other libraries, read safely and renamed to our names."""

from distcls.models.weights.checkpoint import Checkpoint, is_safetensors, read_checkpoint
from distcls.models.weights.load import NameMap, load_checkpoint
from distcls.models.weights.report import Report

__all__ = ["Checkpoint", "NameMap", "Report", "is_safetensors", "load_checkpoint", "read_checkpoint"]
