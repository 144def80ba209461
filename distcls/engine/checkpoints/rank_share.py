"""What each rank keeps for itself in a checkpoint: its BatchNorm buffers, their average, its open logging window."""

import torch
from torch import Tensor

BUFFER = "buffer."  # before a buffer's name in a rank's own file
AVERAGE = "average."  # before the name of a buffer whose moving average this is


def merged(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What several ranks kept for themselves, as one: float buffers averaged, the logging window's sums added up.

    In float64, as `averaged_buffers`: what is equal on all ranks, such as a frozen layer's statistics, stays so.
    """
    whole = dict(shares[0])
    for name, first in shares[0].items():
        if first.is_floating_point():
            total = torch.stack([share[name].double() for share in shares]).sum(0)
            whole[name] = total if name == "window" else (total / len(shares)).to(first.dtype)
    return whole
