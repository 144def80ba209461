"""Reading files of weights: the layouts there are, and those that are refused; nothing that a file holds is executed."""

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from distcls.errors import UserError
from distcls.models.weights import read_checkpoint

STATE = {"backbone.conv.weight": torch.arange(6.0).reshape(2, 3), "head.fc.bias": torch.zeros(2)}


def written(path: Path, content: object, **kwargs) -> Path:
    torch.save(content, path, **kwargs)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "meta": {"epoch": 3, "CLASSES": ("a", "b")}},
        {"state_dict": {f"module.{name}": entry for name, entry in STATE.items()}, "optimizer": {"state": {}}},
        {"model": {f"_orig_mod.module.{name}": entry for name, entry in STATE.items()}, "epoch": 3},
        {"state": {"model": {f"module.{name}": entry for name, entry in STATE.items()}}, "rng": []},
        {"state_dict": OrderedDict((name, nn.Parameter(entry)) for name, entry in STATE.items())},
    ],
    ids=["bare", "openmmlab 0.x", "module.", "compiled", "composer", "parameters"],
)
@pytest.mark.parametrize("kwargs", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_layouts(content: dict, kwargs: dict, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(written(tmp_path / "x.pth", content, **kwargs))
    assert list(checkpoint.tensors) == list(STATE)
    assert all(torch.equal(checkpoint.tensors[name], STATE[name]) for name in STATE)
    assert checkpoint.notes == ()


def test_safetensors_whatever_its_name(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "weights.bin")
    assert set(read_checkpoint(tmp_path / "weights.bin").tensors) == set(STATE)


@pytest.fixture
def history_buffer(monkeypatch: pytest.MonkeyPatch) -> type:
    """mmengine's class, as far as pickle is concerned; the module is gone again when the file is read."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self.max_length = 1000
            self._log_history = np.array([0.5, 0.25])
            self._count_history = np.array([1, 1])

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "mmengine.logging.history_buffer", "HistoryBuffer"
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["mmengine.logging.history_buffer"].HistoryBuffer = HistoryBuffer
    return HistoryBuffer


@pytest.mark.parametrize("kwargs", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_openmmlab_1x_with_its_logs(
    history_buffer: type, kwargs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        "meta": {"epoch": 3, "iter": 30, "dataset_meta": {"classes": ("a", "b")}, "seed": np.int64(7)},
        "state_dict": STATE,
        "message_hub": {
            "log_scalars": OrderedDict({"train/loss": history_buffer()}),
            "runtime_info": OrderedDict({"loss": np.float32(0.5), "names": np.array(["x"])}),
        },
        "ema_state_dict": STATE,
    }
    path = written(tmp_path / "epoch_3.pth", content, **kwargs)
    for name in ("mmengine.logging.history_buffer", "mmengine.logging", "mmengine"):
        monkeypatch.delitem(sys.modules, name)
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == list(STATE)
    assert checkpoint.notes == ("the weights are the file's running average: that run had EMA",)
    assert "mmengine" not in sys.modules


def test_numpy_1_wrote_its_scalars_under_another_module(tmp_path: Path) -> None:
    content = {"state_dict": STATE, "best": np.float64(0.5)}
    path = written(tmp_path / "x.pth", content, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in data
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert set(read_checkpoint(path).tensors) == set(STATE)


def test_timm_s_average_is_taken(tmp_path: Path) -> None:
    other = {name: entry + 1 for name, entry in STATE.items()}
    checkpoint = read_checkpoint(written(tmp_path / "x.pth", {"state_dict": STATE, "state_dict_ema": other}))
    assert torch.equal(checkpoint.tensors["head.fc.bias"], torch.ones(2))
    assert checkpoint.notes == ("the weights are the file's running average (state_dict_ema)",)


def test_prefix(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pth", STATE)
    assert list(read_checkpoint(path, "backbone.").tensors) == ["conv.weight"]
    wrapped = written(tmp_path / "y.pth", {f"model._orig_mod.{name}": entry for name, entry in STATE.items()})
    assert list(read_checkpoint(wrapped, "model.").tensors) == list(STATE)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path, "encoder.")
    assert str(caught.value) == f"{path}: no entry begins with the prefix 'encoder.'"


class WritesAFile:
    """What a malicious file would do when it is unpickled; this one only leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("kwargs", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(kwargs: dict, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = {"state_dict": STATE, "meta": WritesAFile(trace)}
    path = written(tmp_path / "evil.pth", content, **kwargs)
    said = refusal(path)
    assert not trace.exists()
    assert said == (
        f"{path}: refused: to read it, Python would have to run {open.__module__}.open, which is neither a tensor nor a plain value. "
        "Nothing in it was executed. Save its state_dict alone, best as .safetensors, where you trust the file"
    )
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


def test_a_plain_pickle_is_read_no_differently(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(WritesAFile(trace)))
    assert "refused" in refusal(path) or "no checkpoint" in refusal(path)
    assert not trace.exists()


def test_a_pickled_model_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    path = written(tmp_path / "model.pth", nn.Sequential(nn.Linear(2, 2)))
    assert "Python would have to run torch.nn.modules.container.Sequential," in refusal(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    (safetensors.torch.save_file if name.endswith("safetensors") else torch.save)(STATE, path)
    whole = path.read_bytes()
    for cut in (0, 5, 40, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        said = refusal(path)
        assert said.startswith(f"{path}: is ")
        assert "whole safetensors file" in said or "damaged, or no checkpoint at all" in said


def test_a_flipped_bit_in_a_zip_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pth", {"w": torch.full((1000,), 1.5)})
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\xc0\x3f" * 8) + 2] ^= 1
    path.write_bytes(data)
    assert refusal(path) == f"{path}: is damaged: x/data/0 does not match its checksum"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3, "names": ["a"]}, "it holds epoch, names"),
        ([torch.zeros(2)], "it holds a list"),
        ({"state_dict": {}}, "it holds "),
    ],
)
def test_without_weights(content: object, said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.pth", content)
    assert refusal(path).startswith(f"{path}: no weights in it: expected a state_dict, {said}")


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.pth") == f"{tmp_path}/no.pth: cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
