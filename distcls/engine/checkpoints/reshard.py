"""Assembles parameters and optimizer state from the shards of any number of ranks and any strategy.

A checkpoint holds runs of elements in row-major order (strategies/shards.py). In the safetensors files a whole
parameter has its own name and shape; a run of its elements is one-dimensional and named ``name@start``. Optimizer state
adds a slash and the name of the state: ``name/exp_avg@start``. So the files' headers tell which files are needed, and
any run can be assembled exactly from any others.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from distcls.engine.checkpoints.manifest import Damaged, read_file
from distcls.engine.strategies.shards import Run


def shard_name(run: Run, state: str = "") -> str:
    """The name in the file of a run of a parameter, or of a run of one of its optimizer states."""
    name = f"{run.name}/{state}" if state else run.name
    return name if run.whole else f"{name}@{run.start}"


def read_runs(path: Path, entries: Iterable[dict[str, Any]], wanted: Iterable[Run]) -> dict[str, Tensor]:
    """The wanted runs of every tensor in the files of one kind (model, ema or optimizer).

    Only files that hold a part of them are read, one after the other, and each one's hash is verified.

    Args:
        path: of the checkpoint.
        entries: of its manifest, for this kind of file.
        wanted: runs of parameters; optimizer states are returned for the same runs.

    Returns:
        ``name`` or ``name/state`` -> (length,), on the CPU.

    Raises:
        Damaged: a file differs from what was written, or elements are missing from all files.
    """
    runs = {run.name: run for run in wanted}
    found: dict[str, Tensor] = {}
    missing: dict[str, int] = {}
    for entry in entries:
        overlaps = [place for place in _index(path / entry["name"]) if _overlaps(place, runs)]
        if not overlaps:
            continue
        tensors = safetensors.torch.load(read_file(path / entry["name"], entry))
        for place in overlaps:
            name, run, tensor = place.name, runs[place.parameter], tensors[place.key]
            first, last = max(place.start, run.start), min(place.start + place.length, run.start + run.length)
            if name not in found:
                found[name] = torch.empty(run.length, dtype=tensor.dtype)
                missing[name] = run.length
            piece = tensor.reshape(-1)[first - place.start : last - place.start]
            found[name][first - run.start : last - run.start] = piece
            missing[name] -= last - first
    if holes := [name for name, count in missing.items() if count]:
        raise Damaged(f"its files hold only a part of {holes[0]}")
    return found


def whole_runs(manifest: dict[str, Any]) -> list[Run]:
    """A run for each parameter of the checkpoint that covers all of it."""
    shapes = manifest["state"]["shapes"]
    return [Run(name, tuple(shape), 0, math.prod(shape)) for name, shape in shapes.items()]


class _Place(NamedTuple):
    """One tensor of a file: its key there, and which elements of which parameter or state it holds."""

    key: str
    name: str
    start: int
    length: int

    @property
    def parameter(self) -> str:
        return self.name.partition("/")[0]


def _index(file: Path) -> list[_Place]:
    """The tensors of a safetensors file, from its header.

    Raises:
        Damaged: the header cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    except (ValueError, FileNotFoundError) as error:
        raise Damaged(f"{file.name} is not what was written: it has no header") from error
    found = []
    for key, entry in header.items():
        if key != "__metadata__":
            name, at, start = key.rpartition("@")
            found.append(_Place(key, name if at else key, int(start) if at else 0, math.prod(entry["shape"])))
    return found


def _overlaps(place: _Place, runs: Mapping[str, Run]) -> bool:
    run = runs.get(place.parameter)
    return run is not None and max(place.start, run.start) < min(place.start + place.length, run.start + run.length)
