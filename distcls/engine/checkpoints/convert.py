"""Converts a checkpoint to another number of ranks, with whole tensors.

A run can resume from any checkpoint on any number of ranks without this. It is for moving a checkpoint elsewhere or
looking into it: one file each for weights, their average and the optimizer, however they were sharded.
"""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from distcls.engine.checkpoints.commit import Commit
from distcls.engine.checkpoints.manifest import CheckpointError, Damaged, entries_of, read_file, read_manifest
from distcls.engine.checkpoints.rank_share import merged, rank_shares
from distcls.engine.checkpoints.reshard import read_runs, whole_runs
from distcls.engine.checkpoints.tensor_file import SaveFailed, write_tensors


def convert(checkpoint: Path, folder: Path, world_size: int) -> Path:
    """Write `checkpoint` into `folder` as `world_size` ranks would have.

    BatchNorm buffers are averaged over the ranks that wrote them, and the sums of the open logging window go to rank 0,
    exactly as when a run resumes on another number of ranks.

    Returns:
        The new checkpoint.

    Raises:
        CheckpointError: it is damaged. SaveFailed: the disk is full.
    """
    try:
        manifest = read_manifest(checkpoint)
        files = _files(checkpoint, manifest, world_size)
    except Damaged as damage:
        raise CheckpointError(f"checkpoint {checkpoint} cannot be converted: {damage}") from damage
    commit = None
    try:
        commit = Commit(folder, manifest["step"])
        entries = []
        for (stem, rank), tensors in files.items():
            name = f"{stem}.rank{rank:05d}.safetensors"
            size, sha256 = write_tensors(commit.path / name, tensors)
            entries.append({"name": name, "stem": stem, "rank": rank, "size": size, "sha256": sha256})
        state = {**manifest["state"], "world_size": world_size}
        kept = {key: value for key, value in manifest.items() if key != "token"}
        commit.finish({**kept, "world_size": world_size, "files": entries, "state": state})
    except OSError as error:
        if commit is not None:
            commit.abandon()
        raise SaveFailed(f"{folder / checkpoint.name} was not written: {error.strerror}") from error
    return commit.final


def _files(checkpoint: Path, manifest: dict, world_size: int) -> dict[tuple[str, int], dict[str, Tensor]]:
    """(stem, rank) -> tensors by name."""
    runs = whole_runs(manifest)
    shapes = {run.name: run.shape for run in runs}
    files: dict[tuple[str, int], dict[str, Tensor]] = {}
    for stem in ("model", "ema", "optimizer"):
        if entries := entries_of(manifest, stem):
            found = read_runs(checkpoint, entries, runs)
            files[stem, 0] = {name: found[name].reshape(shapes[name.partition("/")[0]]) for name in found}
    for entry in entries_of(manifest, "once"):
        files["once", 0] = safetensors.torch.load(read_file(checkpoint / entry["name"], entry))
    share = merged(rank_shares(checkpoint, manifest))
    for rank in range(world_size):
        files["rank", rank] = share if rank == 0 else {**share, "window": torch.zeros_like(share["window"])}
    return files
