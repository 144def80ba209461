"""Parameters and optimizer state from the shards of any number of ranks, under any strategy.

A checkpoint holds runs of elements in row-major order (strategies/shards.py). In the safetensors files a tensor that is
whole has its parameter's name and shape; a run of it is one-dimensional and named by where it starts, ``name@start``.
Optimizer state adds a slash and the state's name: ``name/exp_avg@start``. So a reader knows from the files alone
which of them it needs, and any run can be put together from any others, exactly.
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
    """The name in the file of this run of the parameter, or of one tensor of its optimizer state."""
    name = f"{run.name}/{state}" if state else run.name
    return name if run.whole else f"{name}@{run.start}"


def read_runs(path: Path, entries: Iterable[dict[str, Any]], wanted: Iterable[Run]) -> dict[str, Tensor]:
    """The wanted runs of every tensor in the files of one kind (model, ema or optimizer).

    Only files that hold a part of them are read, one after the other, each hashed as it is read.

    Args:
        path: the checkpoint. entries: of its manifest, those of the kind.
        wanted: of parameters; of their optimizer state the same runs are given.

    Returns:
        ``name`` or ``name/state`` -> (length,), on the CPU.

    Raises:
        Damaged: a file is not what was written, or elements are in none of them.
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
    """Every parameter of the checkpoint, whole."""
    shapes = manifest["state"]["shapes"]
    return [Run(name, tuple(shape), 0, math.prod(shape)) for name, shape in shapes.items()]


class _Place(NamedTuple):
    """One tensor of a file: its key there, and which elements of what it holds."""

    key: str
    name: str
    start: int
    length: int

    @property
    def parameter(self) -> str:
        return self.name.partition("/")[0]


def _index(file: Path) -> list[_Place]:
    """What is in a safetensors file, from its header alone.

    Raises:
        Damaged: it has none.
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
