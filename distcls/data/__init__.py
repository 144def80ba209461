"""From .beton files to batches. Importing this package registers the augmentations and mixings."""

from distcls.data import augment, auto_augment, color_jitter, mix, random_erasing

__all__ = ["augment", "auto_augment", "color_jitter", "mix", "random_erasing"]
