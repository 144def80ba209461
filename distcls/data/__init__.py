"""From .beton files to batches. Importing this package registers the augmentations."""

from distcls.data import augment

__all__ = ["augment"]
