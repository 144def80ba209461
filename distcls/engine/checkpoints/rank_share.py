"""What each rank keeps for itself in a checkpoint: its BatchNorm buffers, their average, its open logging window."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distcls.engine.checkpoints.manifest import entries_of, read_file

BUFFER = "buffer."  # before a buffer's name in a rank's own file
AVERAGE = "average."  # before the name of a buffer whose moving average this is


def rank_shares(checkpoint: Path, manifest: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Every rank's own file, in the order of ranks.

    Raises:
        Damaged: one is not what was written.
    """
    entries = sorted(entries_of(manifest, "rank"), key=lambda entry: entry["rank"])
    return [safetensors.torch.load(read_file(checkpoint / entry["name"], entry)) for entry in entries]


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
