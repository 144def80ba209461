"""Optimizers that do not import torch's compiler, which takes a second."""

import inspect
from typing import TypeVar

import torch

Class = TypeVar("Class", bound=type[torch.optim.Optimizer])


def uncompiled(cls: Class) -> Class:
    """Class decorator that removes torch's compiler wrappers from the methods of an optimizer.

    torch 2.14 excludes five methods from compiled code, and imports all of `torch._dynamo` for that when they are first
    called. Optimizers are never compiled here: `train.compile` compiles the model only. The wrapper of `step` also
    disables gradients, so this decorator does that itself.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        setattr(cls, name, inspect.unwrap(getattr(cls, name)))
    cls.step = torch.no_grad()(inspect.unwrap(cls.step))  # type: ignore[method-assign]
    return cls
