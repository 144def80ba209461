"""Exports a checkpoint of any number of ranks as one weights file, without a GPU and without building the model."""

import json
from pathlib import Path
from typing import Any

from distcls.engine.checkpoints.manifest import CheckpointError, Damaged, entries_of, read_manifest
from distcls.engine.checkpoints.rank_share import AVERAGE, BUFFER, merged, rank_shares
from distcls.engine.checkpoints.reshard import read_runs, whole_runs
from distcls.engine.checkpoints.tensor_file import save_weights
from distcls.version import __version__

#: The facts that are stored both in checkpoints and in the metadata of weights files.
IDENTITY = ("run_id", "recipe", "class_names", "mean", "std", "evaluation")


def metadata(identity: dict[str, Any], step: int, metrics: dict[str, float]) -> dict[str, str]:
    """The metadata of a weights file; safetensors allows only strings."""
    facts = {"format": "distcls", "distcls": __version__, "step": step, "metrics": metrics, **identity}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def export(checkpoint: Path, target: Path, *, raw: bool) -> int:
    """Write the weights of `checkpoint`: their moving average if there is one, unless `raw` is set.

    BatchNorm buffers are averaged over the ranks that wrote them, as in every evaluation.

    Returns:
        The number of tensors.

    Raises:
        CheckpointError: it is damaged. SaveFailed: the disk is full.
    """
    try:
        manifest = read_manifest(checkpoint)
        state = manifest["state"]
        average = [] if raw else entries_of(manifest, "ema")
        runs = whole_runs(manifest)
        found = read_runs(checkpoint, average or entries_of(manifest, "model"), runs)
        tensors = {run.name: found[run.name].reshape(run.shape) for run in runs}
        buffers = merged(rank_shares(checkpoint, manifest))
    except Damaged as damage:
        raise CheckpointError(f"checkpoint {checkpoint} cannot be exported: {damage}") from damage
    for name in state["persistent"]:
        own = buffers[f"{BUFFER}{name}"]
        tensors[name] = own if raw else buffers.get(f"{AVERAGE}{name}", own)
    tensors |= {name: tensors[kept] for name, kept in state.get("other_names", {}).items() if kept in tensors}
    identity = {key: state[key] for key in IDENTITY}
    save_weights(target, tensors, metadata(identity, manifest["step"], state["progress"]["last"]))
    return len(tensors)
