"""Captures the backbone's forward and backward as one CUDA graph each, with a tenth of the kernel launches."""

import torch
from accelerate import Accelerator
from torch import nn


def capture_backbone(
    backbone: nn.Module, micro_batch: int, resolution: int, dtype: torch.dtype, accelerator: Accelerator
) -> None:
    """Make `backbone` replay CUDA graphs in training mode; evaluation is unchanged.

    Capturing runs the backbone a few times; BatchNorm's statistics are restored afterwards.

    Args:
        backbone: on a GPU, not wrapped yet, in training mode except for frozen parts. Its weights must not be moved
            from here on. A backbone that is frozen as a whole is left alone: torch would take its evaluation for
            training.
        micro_batch, resolution: (N, 3, R, R) is the shape of every training batch.
        dtype: of the loader's images.
    """
    if not backbone.training:
        return
    images = torch.zeros(micro_batch, 3, resolution, resolution, device=accelerator.device, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)  # as the loader gives them
    kept = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    with accelerator.autocast():
        torch.set_autocast_cache_enabled(False)  # a cached cast would not be part of the graph
        try:
            torch.cuda.make_graphed_callables(backbone, (images,))
        finally:
            torch.set_autocast_cache_enabled(True)
    for name, buffer in backbone.named_buffers():
        buffer.copy_(kept[name])
    backbone.zero_grad()
