"""Optimizers and learning-rate schedules. Importing this package registers them."""

from distcls.optim import lamb, optimizers, schedules

__all__ = ["lamb", "optimizers", "schedules"]
