"""From .beton files to batches. Importing this package registers the augmentations and mixings."""

from distcls.data import augment, mix

__all__ = ["augment", "mix"]
