"""Training a tiny recipe for real: what lands in the run folder, and that two launchers make two ranks with equal numbers."""

import json

import pytest
import torch
from typer.testing import CliRunner

import distcls
from distcls.cli.main import app
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.tracking.jsonl import read_events, read_rows
from tests.engine.launching import ACCELERATE_TWO, PLAIN, TORCHRUN, launch


def rows_of(folder, prefix):
    return {row["step"]: row for row in read_rows(folder) if any(name.startswith(prefix) for name in row)}


def test_a_run_and_its_folder(tiny_recipe, tmp_path):
    code, output = launch(PLAIN, tiny_recipe)
    run = tmp_path / "run"
    assert code == 0, output
    assert "finished: val loss" in output
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    train, val = rows_of(run, "train/"), rows_of(run, "val/")
    assert list(train) == [4, 8, 12, 16, 20, 24, 28, 30]
    assert list(val) == [10, 20, 30]
    assert all(row["val/n"] == 103 for row in val.values())
    assert train[4]["samples"] == 128
    assert train[4]["epoch"] == 0.4
    assert val[30]["val/top1"] > 0.4  # chance is 0.2
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step_00000028", "step_00000030"]

    model = distcls.load(run)
    assert model.class_names == [f"class_{number}" for number in range(5)]
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5)

    (run / "report.html").unlink()  # killed before it could draw it
    code, output = launch(PLAIN, tiny_recipe)
    assert code == 0
    assert f"the run in {run} is finished; to train again, give another output_dir" in output
    assert (run / "report.html").exists()


def assert_exports_what_the_run_exported(run, file):
    """`distcls checkpoint export` makes of the last checkpoint what the run itself wrote: BatchNorm averaged, metadata."""
    result = CliRunner().invoke(app, ["checkpoint", "export", str(run), "-o", str(file)])
    assert result.exit_code == 0, result.output
    (ours, about), (theirs, expected) = load_weights(file), load_weights(run / "weights" / "last.safetensors")
    assert about == expected
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


@pytest.mark.parametrize("launcher", [ACCELERATE_TWO, TORCHRUN], ids=["accelerate", "torchrun"])
def test_two_ranks_equal_one_that_accumulates(launcher, tiny_recipe, tmp_path):
    double = ["train.precision=fp64", "train.epochs=null", "train.max_steps=10", "train.log_every_steps=1"]
    one, two = tmp_path / "one", tmp_path / "two"
    code, output = launch(PLAIN, tiny_recipe, *double, f"output_dir={one}", "train.accumulation_steps=2")
    assert code == 0, output
    code, output = launch(launcher, tiny_recipe, *double, f"output_dir={two}")
    assert code == 0, output

    assert json.loads((two / "run.json").read_text())["attempts"][0]["world_size"] == 2
    first, second = rows_of(one, "train/"), rows_of(two, "train/")
    assert list(first) == list(second) == list(range(1, 11))
    for step in first:
        assert second[step]["train/loss"] == pytest.approx(first[step]["train/loss"], abs=1e-9)
    val = rows_of(two, "val/")[10]
    assert val["val/n"] == 103
    # Weights agree; BatchNorm's running averages do not: two ranks average theirs, one rank updates its own twice a step.
    ours, theirs = load_weights(one / "weights/last.safetensors")[0], load_weights(two / "weights/last.safetensors")[0]
    for name in ours:
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(ours[name], theirs[name], atol=1e-9), name
    assert not read_events(two)[-1].get("message")
    assert_exports_what_the_run_exported(two, tmp_path / "exported.safetensors")


@pytest.mark.slow
def test_compiled_is_the_same_model(tiny_recipe, tmp_path):
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    short = ["train.epochs=null", "train.max_steps=6", "train.log_every_steps=1"]
    for run, switch in ((plain, "false"), (compiled, "true")):
        code, output = launch(PLAIN, tiny_recipe, *short, f"output_dir={run}", f"train.compile={switch}", timeout=400)
        assert code == 0, output
    first, second = rows_of(plain, "train/"), rows_of(compiled, "train/")
    for step in first:
        assert second[step]["train/loss"] == pytest.approx(first[step]["train/loss"], rel=1e-4)
    assert (
        load_weights(plain / "weights/last.safetensors")[0].keys()
        == load_weights(compiled / "weights/last.safetensors")[0].keys()
    )
