"""Models: importing this package registers every backbone, neck, head and loss that distcls brings."""

from distcls.models import backbones, heads, losses, necks
from distcls.models.classifier import ImageClassifier, build_classifier

__all__ = ["ImageClassifier", "backbones", "build_classifier", "heads", "losses", "necks"]
