"""LAMB: Adam whose step for each parameter is scaled to the norm of that parameter."""

from typing import Any

import torch
from torch import Tensor, nn

from distcls.optim.optimizers import Beta, NonNegative, Positive
from distcls.optim.param_groups import ParamwiseCfg, param_groups
from distcls.optim.uncompiled import uncompiled
from distcls.registry import OPTIMIZERS


@OPTIMIZERS.register
@uncompiled
class Lamb(torch.optim.Optimizer):
    """You et al., "Large Batch Optimization for Deep Learning", 2019, https://arxiv.org/abs/1904.00962; equals timm's.

    Not timm's own, because importing timm takes seconds. Norms are over whole parameters, so it cannot update shards
    (zero1 to zero3, fsdp2).

    Args:
        betas, eps: as in Adam.
        weight_decay: added to the step before it is scaled; parameters without it take Adam's step.
        max_grad_norm: largest L2 norm of all gradients together; null does not clip.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        eps: Positive = 1e-6,
        weight_decay: NonNegative = 0.01,
        max_grad_norm: Positive | None = 1.0,
        paramwise_cfg: ParamwiseCfg | None = None,
    ) -> None:
        groups = param_groups(model, lr=lr, weight_decay=weight_decay, paramwise_cfg=paramwise_cfg)
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "max_grad_norm": max_grad_norm})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        scale = self._clip_factor()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad * scale, group)

    def _clip_factor(self) -> Tensor | float:
        largest = self.defaults["max_grad_norm"]
        if largest is None:
            return 1.0
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        return 1 / torch.nn.utils.get_total_norm(gradients).div(largest).clamp(min=1.0)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step = state["step"].item()
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1) / (1 - beta1**step)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        change = mean / (square.sqrt() / (1 - beta2**step) ** 0.5 + group["eps"])
        if group["weight_decay"]:
            change.add_(parameter, alpha=group["weight_decay"])
            ratio = parameter.norm() / change.norm()
            change *= torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, 1.0)
        parameter.sub_(change, alpha=group["lr"])
