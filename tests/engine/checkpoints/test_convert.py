"""A checkpoint of two ranks written out for one and for three: the same elements, whole, and shares as a resume makes."""

import os

import pytest
import torch

from distcls.engine.checkpoints.convert import convert
from distcls.engine.checkpoints.inventory import harm_of
from distcls.engine.checkpoints.manifest import CheckpointError, entries_of, read_manifest
from distcls.engine.checkpoints.rank_share import merged, rank_shares
from distcls.engine.checkpoints.reshard import read_runs
from distcls.engine.strategies.shards import Run
from tests.engine.checkpoints.test_ranks import on_two_ranks

WEIGHT = torch.arange(12.0).reshape(4, 3)
RUN = Run("weight", (4, 3), 0, 12)


def save_sharded(store):
    """Each rank holds half of the weight, of its average and of its momentum, and its own BatchNorm mean and window."""
    rows = WEIGHT[2 * store.rank : 2 * store.rank + 2].reshape(-1)
    at = f"@{6 * store.rank}"
    files = {
        "model": {f"weight{at}": rows},
        "ema": {f"weight{at}": rows + 0.5},
        "optimizer": {f"weight/momentum{at}": -rows},
        "rank": {"window": torch.tensor([1.0 + store.rank]), "buffer.mean": torch.tensor([4.0 * store.rank])},
    }
    if store.rank == 0:
        files["once"] = {"step": torch.tensor(7)}
    return store.save(5, files, {"shapes": {"weight": [4, 3]}, "world_size": 2, "progress": {"step": 5}})


@pytest.fixture
def checkpoint(tmp_path):
    return on_two_ranks(tmp_path / "run" / "checkpoints", save_sharded)[0]


@pytest.mark.parametrize("ranks", [1, 3])
def test_for_another_number_of_ranks(checkpoint, tmp_path, ranks):
    path = convert(checkpoint, tmp_path / "other", ranks)
    assert path == tmp_path / "other" / "step_00000005"
    assert harm_of(path) is None
    manifest = read_manifest(path)
    assert (manifest["step"], manifest["world_size"], manifest["state"]["world_size"]) == (5, ranks, ranks)
    for stem, name, expected in (
        ("model", "weight", WEIGHT),
        ("ema", "weight", WEIGHT + 0.5),
        ("optimizer", "weight/momentum", -WEIGHT),
    ):
        (entry,) = entries_of(manifest, stem)
        assert torch.equal(read_runs(path, [entry], [RUN])[name].reshape(4, 3), expected)
    shares = rank_shares(path, manifest)
    assert [share["buffer.mean"].item() for share in shares] == [2.0] * ranks
    assert [share["window"].item() for share in shares] == [3.0] + [0.0] * (ranks - 1)


def test_what_is_equal_on_all_ranks_stays_what_it_is():
    """A frozen layer's statistics, a table of positions: a mean in float32 would change every seventh of them."""
    constant = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    for ranks in (2, 3, 5, 24):
        own = {"window": torch.ones(1, dtype=torch.float64), "buffer.table": constant}
        whole = merged([own] * ranks)
        assert whole["buffer.table"].equal(constant), ranks
        assert whole["window"].item() == ranks


def test_a_damaged_one_is_refused(checkpoint, tmp_path):
    os.truncate(checkpoint / "rank.rank00001.safetensors", 5)
    with pytest.raises(CheckpointError, match=r"cannot be converted: rank\.rank00001\.safetensors has 5 bytes"):
        convert(checkpoint, tmp_path / "other", 1)
    assert not (tmp_path / "other").exists()
