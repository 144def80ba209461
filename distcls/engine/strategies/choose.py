"""The strategy that the recipe names."""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from distcls.engine.strategies.ddp import DDP
from distcls.engine.strategies.fsdp2 import FSDP2
from distcls.engine.strategies.strategy import Strategy


def make_strategy(
    name: str,
    accelerator: Accelerator,
    classifier: nn.Module,
    build_optimizer: Callable[[], torch.optim.Optimizer],
    *,
    blocks: Sequence[nn.Module],
    clip_grad_norm: float | None,
) -> Strategy:
    """Wrap `classifier`, which is on its device and the same on all ranks, and assert that what was asked for is so.

    Args:
        name: ddp or fsdp2.
        build_optimizer: called when the parameters are those that it shall update.
        blocks: what a sharded model gathers at once.
        clip_grad_norm: largest L2 norm of the gradient; None does not clip.
    """
    strategy: Strategy
    if name == "fsdp2":
        strategy = FSDP2(accelerator, classifier, build_optimizer, clip_grad_norm=clip_grad_norm, blocks=blocks)
    else:
        strategy = DDP(accelerator, classifier, build_optimizer, clip_grad_norm=clip_grad_norm)
    strategy.assert_in_effect()
    return strategy
