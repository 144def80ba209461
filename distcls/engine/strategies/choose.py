"""Makes the strategy that the recipe names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from distcls.engine.strategies.ddp import DDP
from distcls.engine.strategies.strategy import Strategy


def make_strategy(
    name: str,
    accelerator: Accelerator,
    classifier: nn.Module,
    build_optimizer: Callable[[], torch.optim.Optimizer],
    *,
    blocks: Sequence[nn.Module],
    micro_batch: int,
    accumulation_steps: int,
    clip_grad_norm: float | None,
    deepspeed_overrides: Mapping[str, Any],
) -> Strategy:
    """Wrap `classifier`, which is on its device and the same on all ranks, and assert that the settings are in effect.

    Args:
        name: ddp, zero1, zero2, zero3 or fsdp2.
        build_optimizer: called once the parameters have been sharded.
        blocks: the units that FSDP2 gathers.
        micro_batch: images per rank and forward pass.
        accumulation_steps: forward passes per update.
        clip_grad_norm: largest L2 norm of the gradient; None does not clip.
        deepspeed_overrides: changes to DeepSpeed's configuration.
    """
    strategy: Strategy
    if name.startswith("zero"):
        from distcls.engine.strategies.zero import ZeRO

        strategy = ZeRO(
            accelerator,
            classifier,
            build_optimizer,
            stage=int(name.removeprefix("zero")),
            micro_batch=micro_batch,
            accumulation_steps=accumulation_steps,
            clip_grad_norm=clip_grad_norm,
            overrides=deepspeed_overrides,
        )
    elif name == "fsdp2":
        from distcls.engine.strategies.fsdp2 import FSDP2  # imports DTensor, half a second

        strategy = FSDP2(accelerator, classifier, build_optimizer, clip_grad_norm=clip_grad_norm, blocks=blocks)
    else:
        strategy = DDP(accelerator, classifier, build_optimizer, clip_grad_norm=clip_grad_norm)
    strategy.assert_in_effect()
    return strategy
