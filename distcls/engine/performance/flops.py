"""Counts the floating-point operations per image before training, on tensors without data."""

import copy

import torch
from torch import nn


def training_flops(model: nn.Module, resolution: int) -> float | None:
    """Floating-point operations of one image's forward and backward pass, a multiplication and an addition being two.

    Convolutions, matrix products and attention are counted, by torch.utils.flop_counter. Frozen parts have no backward
    pass, and recomputation by activation checkpointing is not counted. This runs a copy of the model on the meta
    device, which takes no memory and half a second.

    Args:
        model: images (N, 3, R, R) -> logits (N, C); not wrapped or compiled.
        resolution: R.

    Returns:
        None if the model does not run without data.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    tensors = [*model.parameters(), *model.buffers()]
    kept: dict[int, object] = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        kept[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    twin = copy.deepcopy(model, kept)
    for module in twin.modules():
        if hasattr(module, "with_cp"):  # recomputation is not work that the model needs
            module.with_cp = False  # type: ignore[assignment]
    dtype = next(model.parameters()).dtype
    try:
        # two images: BatchNorm refuses one
        with FlopCounterMode(display=False) as counter:
            twin(torch.empty(2, 3, resolution, resolution, device="meta", dtype=dtype)).sum().backward()
    except Exception:
        return None
    return counter.get_total_flops() / 2
