"""What a recipe's `augment` and `mix` can name: windows and flips, colours and shapes, pairs of images."""

from distcls.data.augmenting import augment, auto_augment, color_jitter, mix, random_erasing

__all__ = ["augment", "auto_augment", "color_jitter", "mix", "random_erasing"]
