"""Shards of any cut, read by ranks of any other cut: what comes back is what was cut, bit for bit."""

import math
import random

import pytest
import torch

from distcls.engine.checkpoints.manifest import CheckpointError
from distcls.engine.checkpoints.reshard import shard_name
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.strategies.shards import Run

SHAPES = {"conv.weight": (5, 3, 2, 2), "norm.bias": (7,), "head.weight": (11, 5), "scale": (1,)}


def cut(ranks, how):
    """For each rank its run of every parameter: equal parts, rows, or stretches of all of them laid end to end."""
    if how == "whole":
        return [[Run(name, shape, 0, math.prod(shape)) for name, shape in SHAPES.items()] for _ in range(ranks)]
    total, offset = sum(map(math.prod, SHAPES.values())), 0
    runs = [[] for _ in range(ranks)]
    for name, shape in SHAPES.items():
        size = math.prod(shape)
        for rank in range(ranks):
            if how == "flat":
                begin, end = rank * math.ceil(total / ranks) - offset, (rank + 1) * math.ceil(total / ranks) - offset
            else:
                row = size // shape[0] if how == "rows" else 1
                part = math.ceil(size // row / ranks) * row
                begin, end = rank * part, (rank + 1) * part
            start, stop = min(max(begin, 0), size), min(max(end, 0), size)
            runs[rank].append(Run(name, shape, start if stop > start else 0, max(0, stop - start)))
        offset += size
    return runs


def save(folder, runs, tensors):
    """What ranks with these runs would write, in one file of each kind."""
    files = {stem: {} for stem in tensors}
    for run in (run for own in runs for run in own if run.length):
        for stem, of in tensors.items():
            for name, state, value in of:
                if name == run.name:
                    values = value.reshape(-1)[run.start : run.start + run.length]
                    files[stem][shard_name(run, state)] = values.view(run.shape) if run.whole else values
    store = CheckpointStore(folder)
    return store, store.save(1, files, {})


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    weights = [(name, "", torch.randn(shape)) for name, shape in SHAPES.items()]
    moments = [(name, key, torch.randn(SHAPES[name])) for name in list(SHAPES)[:3] for key in ("exp_avg", "exp_avg_sq")]
    return {"model": weights, "optimizer": moments}


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_from_any_other(seed, tensors, tmp_path):
    draw = random.Random(seed)
    ways = ["whole", "flat", "rows", "parts"]
    store, path = save(tmp_path, cut(draw.randint(1, 5), draw.choice(ways)), tensors)
    for own in cut(draw.randint(1, 5), draw.choice(ways)):
        found = store.load_runs(path, ["model", "optimizer"], own)
        for stem, of in tensors.items():
            for name, state, value in of:
                run = next(run for run in own if run.name == name)
                key = f"{name}/{state}" if state else name
                if run.length:
                    assert torch.equal(found[stem][key], value.reshape(-1)[run.start : run.start + run.length])
                else:
                    assert key not in found[stem]


def test_a_hole_is_damage(tensors, tmp_path):
    runs = cut(3, "flat")
    store, path = save(tmp_path, [runs[0], runs[2]], tensors)
    with pytest.raises(CheckpointError) as caught:
        store.load_runs(path, ["model"], cut(1, "whole")[0])
    assert str(caught.value).startswith(f"checkpoint {path} cannot be loaded: its files hold only a part of ")


@pytest.mark.parametrize("header", [b"\xff" * 8, b"\2" + bytes(7) + b"[]", b"\x08" + bytes(7) + b'{"a": 1}', b"\3"])
def test_a_damaged_header_is_damage(header, tensors, tmp_path):
    store, path = save(tmp_path, cut(2, "rows"), tensors)
    damaged = min(path.glob("model*"))
    with open(damaged, "r+b") as file:
        file.write(header)
    with pytest.raises(CheckpointError) as caught:
        store.load_runs(path, ["model"], cut(1, "whole")[0])
    assert str(caught.value) == (
        f"checkpoint {path} cannot be loaded: {damaged.name} is not what was written: it has no header"
    )
