"""BatchNorm statistics, and initial weights, across ranks."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from distcls.engine.ranks.collectives import gather


@contextmanager
def averaged_buffers(model: nn.Module, world_size: int) -> Iterator[None]:
    """Average the float buffers (BatchNorm's running statistics) over the ranks within the block; restore them after.

    The same as timm's `distribute_bn` with reduce, but on a copy and summed in float64, so that values that all ranks
    share, such as the statistics of a frozen layer, do not change.
    """
    if world_size == 1:
        yield
        return
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        total = buffer.double()
        torch.distributed.all_reduce(total)
        buffer.copy_(total / world_size)
    try:
        yield
    finally:
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)


def running_statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """The float buffers that weights files contain, BatchNorm's running statistics; not copied."""
    exported = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in exported and buffer.is_floating_point()}


def same_start(model: nn.Module, world_size: int) -> None:
    """Copy rank 0's weights and buffers to every rank, before the model is wrapped; a hash verifies it."""
    if world_size == 1:
        return
    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, src=0)
    hashes = gather(fingerprint(model))
    assert len(set(hashes)) == 1, f"the ranks start from different weights: {hashes}"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over all names, weights and buffers of an unwrapped model."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
