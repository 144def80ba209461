"""Optimizers and learning-rate schedules. Importing this package registers them."""

from distcls.optim import optimizers, schedules

__all__ = ["optimizers", "schedules"]
