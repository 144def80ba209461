"""`distcls checkpoint ...` as a user calls it."""

import os

import pytest
import torch
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.errors import UserError


def call(*arguments):
    result = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, (SystemExit, UserError)):
        raise result.exception
    return result


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints at steps 10 (the best), 20 and 30."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)
    for step in (10, 20, 30):
        tensors = {"model": {"weight": torch.full((300,), float(step))}, "rank": {"window": torch.zeros(2)}}
        store.save(step, tensors, {"epoch": step / 8, "samples": step * 1000}, best=step == 10)
    return tmp_path / "run"


def test_list(run):
    lines = call("list", run).stdout.splitlines()
    assert lines[0].split() == ["checkpoint", "epoch", "samples", "size", "processes", "best", "state"]
    cells = [line.split("  ") for line in lines[1:]]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in cells]
    assert [row[:3] + row[4:] for row in rows] == [
        ["step_00000030", "3.75", "30,000", "1", "whole"],
        ["step_00000020", "2.5", "20,000", "1", "whole"],
        ["step_00000010", "1.25", "10,000", "1", "best", "whole"],
    ]
    assert all(row[3].endswith(" kB") for row in rows)


def test_list_names_one_best(run):
    """Each that was the best when it was written says so in its manifest."""
    CheckpointStore(run / "checkpoints", keep=2).save(40, {"rank": {"window": torch.zeros(2)}}, {}, best=True)
    lines = call("list", run).stdout.splitlines()
    assert [line.split()[0] for line in lines if " best " in line][1:] == ["step_00000040"]


def test_a_folder_that_is_not_there(run, tmp_path):
    assert str(call("list", tmp_path / "nothing").exception) == f"{tmp_path}/nothing: no such run folder"


def test_list_says_what_is_wrong(run):
    os.truncate(run / "checkpoints/step_00000030/model.rank00000.safetensors", 7)
    (run / "checkpoints/step_00000020/MANIFEST.json").unlink()
    (run / "checkpoints/step_00000010").rename(run / "checkpoints/step_00000010.corrupt")
    lines = call("list", run).stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["damaged"] * 3
    assert lines[4:] == [
        "step_00000030: model.rank00000.safetensors has 7 bytes, 1272 were written",
        "step_00000020: MANIFEST.json is missing",
        "step_00000010.corrupt: a start of the run found it damaged and set it aside",
    ]


def test_verify_hashes_every_file(run):
    result = call("verify", run)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"step_000000{step}: every byte is what was written" for step in (30, 20, 10)]
    file = run / "checkpoints/step_00000020/model.rank00000.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = call("verify", run)
    assert result.exit_code == 1
    harm = "model.rank00000.safetensors is not what was written: its sha256 differs"
    assert result.stdout.splitlines()[1] == f"step_00000020: {harm}"
    assert str(result.exception) == (
        f"step_00000020 in {run}: damaged. A run that goes on takes the newest that is not"
    )
    assert call("verify", run / "checkpoints" / "step_00000030").exit_code == 0
    assert call("verify", run / "checkpoints" / "step_00000020").exit_code == 1


@pytest.mark.parametrize("command", ["list", "verify"])
def test_what_is_no_run_is_said(tmp_path, command):
    assert str(call(command, tmp_path).exception) == (
        f"{tmp_path}: no checkpoints/ in it: expected a run folder or one of its checkpoints"
    )
    (tmp_path / "checkpoints").mkdir()
    assert str(call(command, tmp_path).exception) == f"{tmp_path / 'checkpoints'}: no checkpoint in it yet"


def test_a_checkpoint_that_is_not_there(tmp_path):
    assert (
        str(call("verify", tmp_path / "step_00000001").exception) == f"{tmp_path / 'step_00000001'}: no such checkpoint"
    )


def test_a_damaged_checkpoint_is_not_exported(run, tmp_path):
    os.truncate(run / "checkpoints/step_00000030/model.rank00000.safetensors", 7)
    path = run / "checkpoints" / "step_00000030"
    assert str(call("export", path).exception) == (
        f"{path}: no whole checkpoint; step_00000030: model.rank00000.safetensors has 7 bytes, 1272 were written"
    )


def test_a_conversion_replaces_nothing(run, tmp_path):
    (tmp_path / "another_run" / "step_00000030").mkdir(parents=True)
    for folder in (tmp_path / "another_run", run / "checkpoints"):
        text = str(call("convert", run, "-o", folder).exception)
        assert text == f"-o {folder}: step_00000030 is in it already: give another folder"
