"""Each rank's own file in a checkpoint: its BatchNorm buffers, their moving average, its open logging window."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distcls.engine.checkpoints.manifest import entries_of, read_file

BUFFER = "buffer."  # prefix of a buffer's name
AVERAGE = "average."  # prefix of the name of a buffer's moving average


def rank_shares(checkpoint: Path, manifest: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Every rank's own file, in the order of ranks.

    Raises:
        Damaged: one differs from what was written.
    """
    entries = sorted(entries_of(manifest, "rank"), key=lambda entry: entry["rank"])
    return [safetensors.torch.load(read_file(checkpoint / entry["name"], entry)) for entry in entries]


def merged(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Merge the files of several ranks into one: average float buffers, add up the sums of the logging window.

    In float64, like `averaged_buffers`: values that all ranks share, such as frozen statistics, do not change.
    """
    whole = dict(shares[0])
    for name, first in shares[0].items():
        if first.is_floating_point():
            total = torch.stack([share[name].double() for share in shares]).sum(0)
            whole[name] = total if name == "window" else (total / len(shares)).to(first.dtype)
    return whole
