"""Activation checkpointing of a block (`with_cp`): activations are recomputed in backward instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_checkpointed(block: nn.Module, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, a piece of `block`'s forward, without keeping its activations for backward.

    Results equal those of `function` itself: random draws are replayed, and BatchNorm's running averages see each batch
    once (with torch's `checkpoint` alone, twice).
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    if torch.compiler.is_compiling():
        return checkpoint(function, *inputs, use_reentrant=False)
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _averages_kept(block)))


@contextmanager
def _averages_kept(block: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers update copies of their running averages, which are dropped at the end.

    The original buffers are put back instead of being overwritten: DDP holds references to them, and backward must not
    see them change.
    """
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    buffers = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if b is None else b.clone() for name, b in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, own in zip(norms, buffers, strict=True):
            norm._buffers.update(own)
