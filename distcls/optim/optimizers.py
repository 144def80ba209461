"""Torch's optimizers under the names and arguments that recipes use.

Each takes the model rather than its parameters, since weight decay depends on the layers that they belong to
(param_groups.py). An optimizer that is `elementwise` updates every element from its own gradient and state alone, so it
can update the shards of ZeRO and FSDP2. One that needs a parameter's norm or shape (LAMB, Muon) is not.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from distcls.optim.param_groups import ParamwiseCfg, param_groups
from distcls.optim.uncompiled import uncompiled
from distcls.registry import OPTIMIZERS

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


@OPTIMIZERS.register
@uncompiled
class SGD(torch.optim.SGD):
    """Stochastic gradient descent with momentum; `weight_decay` enters the gradient, as in torch.optim.SGD."""

    elementwise = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        momentum: NonNegative = 0.9,
        dampening: float = 0.0,
        weight_decay: NonNegative = 0.0,
        nesterov: bool = False,
        paramwise_cfg: ParamwiseCfg | None = None,
    ) -> None:
        groups = param_groups(model, lr=lr, weight_decay=weight_decay, paramwise_cfg=paramwise_cfg)
        on_gpu = _on_gpu(model)
        # torch's fused kernel of SGD (2.14), unlike that of Adam, refuses the shards of FSDP2 in the first step
        sharded = hasattr(next(model.parameters()), "to_local")  # importing DTensor takes half a second
        kernels: dict[str, Any] = {"foreach": on_gpu} if sharded else {"fused": on_gpu}
        super().__init__(groups, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, **kernels)


@OPTIMIZERS.register
@uncompiled
class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW computes it."""

    elementwise = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.01,
        amsgrad: bool = False,
        paramwise_cfg: ParamwiseCfg | None = None,
    ) -> None:
        groups = param_groups(model, lr=lr, weight_decay=weight_decay, paramwise_cfg=paramwise_cfg)
        super().__init__(groups, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, fused=_on_gpu(model))


@OPTIMIZERS.register
@uncompiled
class RMSprop(torch.optim.RMSprop):
    """The gradient divided by the root of its running mean square (Tieleman & Hinton 2012), as torch.optim.RMSprop."""

    elementwise = True

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99,
        eps: Positive = 1e-8,
        momentum: NonNegative = 0.0,
        weight_decay: NonNegative = 0.0,
        paramwise_cfg: ParamwiseCfg | None = None,
    ) -> None:
        groups = param_groups(model, lr=lr, weight_decay=weight_decay, paramwise_cfg=paramwise_cfg)
        super().__init__(groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum)


def _on_gpu(model: nn.Module) -> bool | None:
    """True on a GPU: one kernel for the whole update. None: torch chooses."""
    return True if next(model.parameters()).is_cuda else None
