"""Nested state and weights files: exact there and back, and damage is told."""

import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distcls.engine.checkpoints.state_tree import flatten_state, unflatten_state
from distcls.engine.checkpoints.tensor_file import DTYPES, SaveFailed, load_weights, save_weights, write_tensors
from distcls.errors import UserError


def there_and_back(state, folder):
    tensors, tree = flatten_state(state)
    write_tensors(folder / "state.safetensors", tensors)
    return unflatten_state(load_file(folder / "state.safetensors"), json.loads(json.dumps(tree, allow_nan=False)))


def same(left, right):
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and bits(left) == bits(right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return (
        type(left) is type(right) and left == right and math.copysign(1, left or 1) == math.copysign(1, right or 1)
        if isinstance(left, float)
        else type(left) is type(right) and left == right
    )


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize(
    "state",
    [
        None,
        {0: 1, "0": 2, True: "bool key", (1, "a"): None},
        {"floats": [0.1, -0.0, 1e-320, 1.0, 1e22, math.inf, -math.inf, math.nan], "int": 2**80, "flag": False},
        {"tuple": (0.9, [0.999, ()]), "empty": {}, "text": "ä\n"},
        {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, "": torch.tensor(3), "__metadata__": torch.tensor(4)},
        torch.tensor(5),
        {"looks like a code": {"dict": 1, "tensor": "x", "float": "nan"}},
    ],
)
def test_plain_state(state, tmp_path):
    assert same(there_and_back(state, tmp_path), state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_bit_for_bit(dtype, tmp_path):
    raw = torch.arange(64, dtype=torch.uint8).repeat(4)
    values = (raw % 2).bool() if dtype is torch.bool else raw.view(dtype)
    state = {"vector": values, "scalar": values[1], "empty": values[:0], "matrix": values[:8].reshape(2, 2, 2)}
    assert same(there_and_back(state, tmp_path), state)


def test_strided_and_shared_tensors_keep_their_values(tmp_path):
    base = torch.randn(4, 6)
    state = {
        "base": base,
        "again": base,
        "transposed": base.t(),
        "slice": base[:, 1::2],
        "expanded": base[:1].expand(3, 6),
    }
    assert same(there_and_back(state, tmp_path), state)


def test_dense_memory_formats_come_back(tmp_path):
    state = {"channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "t": torch.randn(3, 2).t()}
    back = there_and_back(state, tmp_path)
    assert {key: value.stride() for key, value in back.items()} == {key: value.stride() for key, value in state.items()}
    assert same(back, state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD([{"params": p[:1], "weight_decay": 0.1}, {"params": p[1:]}], lr=0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3), capturable=False, foreach=False),
    ],
)
def test_an_optimizer_goes_on_bit_for_bit(optimizer, dtype, tmp_path):
    """Three steps, there and back, three steps: as six steps, with channels_last parameters."""

    def model():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(dtype)
        return made.to(memory_format=torch.channels_last)

    def steps(net, optim, first, last):
        for step in range(first, last):
            torch.manual_seed(step)
            optim.zero_grad()
            net(torch.randn(2, 3, 9, 9, dtype=dtype)).square().mean().backward()
            optim.step()

    straight = model()
    reference = optimizer(list(straight.parameters()))
    steps(straight, reference, 0, 6)

    before = model()
    first = optimizer(list(before.parameters()))
    steps(before, first, 0, 3)
    saved = there_and_back({"model": dict(before.state_dict()), "optimizer": first.state_dict()}, tmp_path)
    after = model()
    second = optimizer(list(after.parameters()))
    after.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    steps(after, second, 3, 6)
    assert same(dict(after.state_dict()), dict(straight.state_dict()))
    assert same(second.state_dict(), reference.state_dict())


def test_what_cannot_be_kept_says_where():
    with pytest.raises(TypeError, match=r"^groups\.1\.hook is a set, which a checkpoint cannot hold$"):
        flatten_state({"groups": [0, {"hook": {1}}]})


def test_weights_and_their_metadata(tmp_path):
    path = tmp_path / "weights" / "best.safetensors"
    save_weights(path, {"fc.weight": torch.ones(2, 3)}, {"mean": "[0.5]", "note": "ü"})
    tensors, metadata = load_weights(path)
    assert metadata == {"mean": "[0.5]", "note": "ü"}
    assert torch.equal(tensors["fc.weight"], torch.ones(2, 3))
    assert torch.equal(load_file(path)["fc.weight"], torch.ones(2, 3)), "other tools read it"
    assert os.listdir(path.parent) == ["best.safetensors"]


def test_weights_of_others_have_no_hash_to_check(tmp_path):
    write_tensors(tmp_path / "timm.safetensors", {"w": torch.ones(1)}, {"format": "pt"})
    assert load_weights(tmp_path / "timm.safetensors")[1] == {"format": "pt"}


def test_failing_to_write_weights_keeps_the_old_ones(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    save_weights(path, {"w": torch.zeros(1)}, {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SaveFailed) as caught:
        save_weights(path, {"w": torch.ones(1)}, {})
    monkeypatch.undo()
    assert str(caught.value) == f"{path} was not written: No space left on device. What was there before is untouched."
    assert load_weights(path)[0]["w"].item() == 0
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_metadata_is_text(tmp_path):
    with pytest.raises(TypeError, match=r"^metadata 'step' must be a string, got 3$"):
        save_weights(tmp_path / "w.safetensors", {}, {"step": 3})


def test_damaged_weights(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, {"w": torch.ones(100)}, {})
    whole = path.read_bytes()

    def message():
        with pytest.raises(UserError) as caught:
            load_weights(path)
        return str(caught.value)

    path.write_bytes(whole[:-1])
    assert message().startswith(f"{path}: is not a whole safetensors file ({len(whole) - 1} bytes): ")
    path.write_bytes(b"")
    assert message().startswith(f"{path}: is not a whole safetensors file (0 bytes): ")
    path.write_bytes(b"PK\x03\x04 a pickle of torch.save" * 9)
    assert message().startswith(f"{path}: is not a whole safetensors file (243 bytes): ")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert message() == f"{path}: is damaged: its content does not match the sha256 that was written with it"
    path.unlink()
    assert message() == f"{path}: cannot be read: No such file or directory"


def test_weights_on_a_disk_that_has_become_read_only_are_a_failed_save(tmp_path, monkeypatch):
    """A periodic save of a run that trains on: what it had begun cannot be removed either."""

    def refused(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(SaveFailed, match=r"w\.safetensors was not written: Read-only file system"):
        save_weights(tmp_path / "w.safetensors", {"w": torch.ones(1)}, {})
