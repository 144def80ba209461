"""From images on disk to batches. Importing this package registers the augmentations and mixings."""

from distcls.data import augmenting

__all__ = ["augmenting"]
