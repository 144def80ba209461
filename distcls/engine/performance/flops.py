"""The work that one image costs: counted on tensors without data, before training."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def training_flops(model: nn.Module, resolution: int) -> float | None:
    """Floating-point operations of one image's forward and backward pass, a multiplication and an addition being two.

    Convolutions, matrix products and attention count, as torch.utils.flop_counter counts them; what is frozen has no
    backward pass, and what activation checkpointing computes again counts once. A copy of the model on the meta device
    runs, which takes no memory and half a second.

    Args:
        model: images (N, 3, R, R) -> logits (N, C); neither wrapped nor compiled.
        resolution: R.

    Returns:
        None where a model does not run without data.
    """
    tensors = [*model.parameters(), *model.buffers()]
    kept: dict[int, object] = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        kept[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    twin = copy.deepcopy(model, kept)
    for module in twin.modules():
        if hasattr(module, "with_cp"):  # what is computed a second time is not work that the model needs
            module.with_cp = False  # type: ignore[assignment]
    dtype = next(model.parameters()).dtype
    try:
        # two images: BatchNorm refuses one
        with FlopCounterMode(display=False) as counter:
            twin(torch.empty(2, 3, resolution, resolution, device="meta", dtype=dtype)).sum().backward()
    except Exception:
        return None
    return counter.get_total_flops() / 2
