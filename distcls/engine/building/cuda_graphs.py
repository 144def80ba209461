"""The backbone's forward and backward as one CUDA graph each: a tenth of the launches for the interpreter."""

import torch
from accelerate import Accelerator
from torch import nn


def capture_backbone(
    backbone: nn.Module, micro_batch: int, resolution: int, dtype: torch.dtype, accelerator: Accelerator
) -> None:
    """In training mode replay graphs in place of the forward of `backbone`; evaluation stays as it is.

    Capturing runs the backbone a few times: BatchNorm's statistics are put back.

    Args:
        backbone: on a GPU, not wrapped yet, in training mode but for what is frozen in it; its weights stay where they
            are from here on. One that is frozen as a whole is left alone: torch would take its evaluation for training.
        micro_batch, resolution: (N, 3, R, R) is the shape of every training batch.
        dtype: of the loader's images.
    """
    if not backbone.training:
        return
    images = torch.zeros(micro_batch, 3, resolution, resolution, device=accelerator.device, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)  # as the loader gives them
    kept = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    with accelerator.autocast():
        torch.set_autocast_cache_enabled(False)  # a cached cast would be outside of the graph
        try:
            torch.cuda.make_graphed_callables(backbone, (images,))
        finally:
            torch.set_autocast_cache_enabled(True)
    for name, buffer in backbone.named_buffers():
        buffer.copy_(kept[name])
    backbone.zero_grad()
