"""One file of weights from a checkpoint of any number of ranks, without a GPU and without building the model."""

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from distcls import __version__
from distcls.engine.checkpoints.commit import CheckpointError, Damaged, check_file, read_manifest
from distcls.engine.checkpoints.rank_share import BUFFER, merged
from distcls.engine.checkpoints.reshard import read_runs
from distcls.engine.checkpoints.tensor_file import save_weights
from distcls.engine.strategies.shards import Run

#: What a checkpoint's state and the metadata of weights have in common.
IDENTITY = ("run_id", "recipe", "class_names", "mean", "std")


def metadata(identity: dict[str, Any], step: int, metrics: dict[str, float]) -> dict[str, str]:
    """What a weights file says about itself; strings, as safetensors has them."""
    facts = {"format": "distcls", "distcls": __version__, "step": step, "metrics": metrics, **identity}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def export(checkpoint: Path, target: Path, *, raw: bool) -> int:
    """Write the weights of `checkpoint`, or their moving average where one is kept and `raw` is not asked for.

    BatchNorm buffers are averaged over the ranks that wrote them, as in every evaluation.

    Returns:
        The number of tensors.

    Raises:
        CheckpointError: it is damaged. SaveFailed: the disk is full.
    """
    try:
        manifest = read_manifest(checkpoint)
        state, files = manifest["state"], manifest["files"]
        averaged = not raw and any(entry["stem"] == "ema" for entry in files)
        kind = [entry for entry in files if entry["stem"] == ("ema" if averaged else "model")]
        shapes = {name: tuple(shape) for name, shape in state["shapes"].items()}
        found = read_runs(checkpoint, kind, [Run(name, s, 0, math.prod(s)) for name, s in shapes.items()])
        tensors = {name: found[name].reshape(shape) for name, shape in shapes.items()}
        buffers = _buffers(checkpoint, [entry for entry in files if entry["stem"] == "rank"])
    except Damaged as damage:
        raise CheckpointError(f"checkpoint {checkpoint} cannot be exported: {damage}") from damage
    tensors |= {name: buffers[f"{BUFFER}{name}"] for name in state["persistent"]}
    identity = {key: state[key] for key in IDENTITY}
    save_weights(target, tensors, metadata(identity, manifest["step"], state["progress"]["last"]))
    return len(tensors)


def _buffers(checkpoint: Path, entries: list[dict[str, Any]]) -> dict[str, Tensor]:
    shares = []
    for entry in sorted(entries, key=lambda entry: entry["rank"]):
        check_file(checkpoint / entry["name"], entry)
        shares.append(safetensors.torch.load_file(checkpoint / entry["name"]))
    return merged(shares)
