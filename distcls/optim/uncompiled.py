"""Optimizers without torch's compiler: a run that compiles nothing saves the second that importing it takes."""

import inspect
from typing import TypeVar

import torch

Class = TypeVar("Class", bound=type[torch.optim.Optimizer])


def uncompiled(cls: Class) -> Class:
    """Class decorator: the methods of a torch optimizer as they are inside of what torch has wrapped them in.

    torch 2.14 keeps five methods out of compiled code, and imports all of `torch._dynamo` for that at the first call of
    each. Nobody compiles an optimizer here: the model alone is, by `train.compile`. The wrapper of `step` switches
    gradients off as well, which is done here.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        setattr(cls, name, inspect.unwrap(getattr(cls, name)))
    cls.step = torch.no_grad()(inspect.unwrap(cls.step))  # type: ignore[method-assign]
    return cls
