"""The mistakes and accidents of a run: one clear error, no traceback, nothing lost."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import distcls
from distcls.engine.attempt.preparing import prepare
from distcls.engine.checkpoints.commit import committed
from distcls.errors import UserError
from distcls.registry import NECKS
from distcls.tracking.jsonl import read_events
from tests.engine.launching import ACCELERATE_TWO, PLAIN, launch

BROKEN_GRADIENT = """
from distcls.models.necks.gap import GlobalAveragePooling
from distcls.registry import NECKS

@NECKS.register
class Odd(GlobalAveragePooling):
    passes = 0

    def forward(self, inputs):
        self.passes += self.training
        if self.passes == 8:
            inputs.register_hook(lambda gradient: gradient * float("inf"))
        return super().forward(inputs)
"""


def refusal(recipe: Path, *overrides: str) -> str:
    """What the checks before training say, with the recipe's folder cut out."""
    with pytest.raises(UserError) as caught:
        prepare(recipe, overrides, world_size=1)
    return str(caught.value).replace(str(recipe.parent), ".")


def test_another_number_of_classes_names_both(tiny_recipe, tiny_data):
    text = refusal(tiny_recipe, "model.head.num_classes=1000").replace(str(tiny_data), "DATA")
    assert text.splitlines() == [
        "2 mistakes in ./tiny.yaml",
        "command line: model.head.num_classes: does not fit the data: got 1000, expected 5, "
        "the classes of data.train (DATA/train.beton)",
        "command line: model.head.num_classes: does not fit the data: got 1000, expected 5, "
        "the classes of data.val (DATA/val.beton)",
    ]


def test_another_number_of_classes_in_a_backbone_that_classifies(tiny_recipe, tiny_data):
    own = "model.backbone={type: LeNet5, num_classes: 7, in_channels: 3}"
    text = refusal(tiny_recipe, own, "model.neck=null", "model.head={type: ClsHead}").replace(str(tiny_data), "DATA")
    assert text.splitlines()[1] == (
        "command line: model.backbone.num_classes: does not fit the data: got 7, expected 5, "
        "the classes of data.train (DATA/train.beton)"
    )


def test_a_batch_larger_than_the_data(tiny_recipe, tiny_data):
    text = refusal(tiny_recipe, "train.global_batch_size=512").replace(str(tiny_data), "DATA")
    assert text.splitlines()[1:] == [
        "command line: train.global_batch_size: larger than the training set: got 512, expected at most 320, "
        "the images of DATA/train.beton"
    ]


def test_epochs_too_short_for_a_step(tiny_recipe):
    text = refusal(tiny_recipe, "train.epochs=0.04")
    assert text.splitlines()[1:] == [
        "command line: train.epochs: not one step: got 0.04 epochs of 10 steps of 32 images, expected more, or "
        "train.max_steps"
    ]


def test_missing_data_names_the_key_the_path_and_the_command(tiny_recipe):
    text = refusal(tiny_recipe, "data.train.path=data/nowhere.beton")
    assert text.splitlines()[1:] == [
        "command line: data.train.path: data/nowhere.beton: no such file. Write it from your images with "
        "`distcls data convert SOURCE data/nowhere.beton` (`distcls data convert --help` lists the sources)."
    ]


def test_a_plugin_that_fails_is_one_line_of_the_report(tiny_recipe):
    plugin = tiny_recipe.parent / "broken.py"
    plugin.write_text("import torch\n\nraise RuntimeError('no luck')\n")
    tiny_recipe.write_text("plugins: [./broken.py, ./missing.py]\n" + tiny_recipe.read_text())
    assert refusal(tiny_recipe, "train.global_batch_size=0").splitlines() == [
        "3 mistakes in ./tiny.yaml",
        "./tiny.yaml:1:11: plugins.0: ./broken.py:3: RuntimeError: no luck",
        "./tiny.yaml:1:24: plugins.1: ./missing.py: no such file",
        "command line: train.global_batch_size: out of range: got 0, expected a whole number > 0",
    ]


def test_a_plugin_trains_and_is_kept_with_the_run(tiny_recipe, tmp_path):
    (tmp_path / "half.py").write_text(
        "from torch import nn\n\nfrom distcls.registry import NECKS\n\n\n"
        "@NECKS.register\nclass Half(nn.Module):\n"
        "    def forward(self, x):\n        return x.mean((2, 3)) / 2\n"
    )
    tiny_recipe.write_text("plugins: [./half.py]\n" + tiny_recipe.read_text())
    code, output = launch(PLAIN, tiny_recipe, "model.neck.type=Half", "train.epochs=null", "train.max_steps=4")
    assert code == 0, output
    (copy,) = (tmp_path / "run" / "plugins").iterdir()
    assert copy.read_text() == (tmp_path / "half.py").read_text()

    try:
        assert type(distcls.load(tmp_path / "run").neck).__name__ == "Half", "load imports the plug-ins of the run"
    finally:
        NECKS._classes.pop("Half", None)
    (tmp_path / "half.py").unlink()
    with pytest.raises(UserError) as caught:
        distcls.load(tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path}/run/weights/best.safetensors: a plug-in of its run: {tmp_path}/half.py: no such file. "
        "Put it back, or import its classes before distcls.load"
    )


def test_a_loss_that_is_not_finite_stops_the_run(tiny_recipe, tmp_path):
    code, output = launch(PLAIN, tiny_recipe, "optimizer.lr=1.0e+18", "schedule.warmup_start_factor=1.0e-19")
    assert code == 1
    assert "Traceback" not in output
    assert "error: the loss or the weights are not finite at step " in output
    assert "at learning rate " in output
    assert "the last good checkpoint is " in output
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["status"] == "failed"
    assert "not finite" in state["attempts"][0]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("ddp", "the loss or the weights are not finite at step 8 "),
        ("zero1", "the loss is finite and its gradient is not: "),
    ],
)
def test_weights_that_the_last_step_broke_are_not_saved(tiny_recipe, tmp_path, strategy, said):
    (tmp_path / "odd.py").write_text(BROKEN_GRADIENT)
    tiny_recipe.write_text("plugins: [./odd.py]\n" + tiny_recipe.read_text())
    overrides = ["model.neck.type=Odd", "train.epochs=null", "train.max_steps=8", f"distributed.strategy={strategy}"]
    code, output = launch(PLAIN, tiny_recipe, *overrides)
    assert code == 1
    assert f"error: {said}" in output
    assert "Traceback" not in output
    run = tmp_path / "run"
    assert [path.name for path in committed(run / "checkpoints")] == ["step_00000004"]
    assert not (run / "weights").exists()


def test_two_ranks_say_a_mistake_once(tiny_recipe):
    code, output = launch(ACCELERATE_TWO, tiny_recipe, "optimizer.lr=fast")
    assert code == 1
    assert output.count("command line: optimizer.lr: wrong type") == 1


@pytest.fixture
def small_disk(tmp_path):
    """A mounted file system of eight megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_costs_checkpoints_not_the_run(tiny_recipe, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(7_770_000))
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={small_disk / 'run'}")
    events = read_events(small_disk / "run")
    assert "was not written: " in output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert [event for event in events if event["kind"] == "checkpoint"]
    ballast.unlink()
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={small_disk / 'run'}")
    assert code == 0, output


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("pages", [1, 4])  # of 4 KiB: nothing fits; run.json does, what is written after it does not
def test_a_disk_that_is_full_when_the_run_begins_is_named_without_a_traceback(tiny_recipe, small_disk, pages):
    run = small_disk / "run"
    (small_disk / "ballast").write_bytes(bytes(8 * 1024 * 1024 - pages * 4096))
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={run}")
    assert code == 1
    assert re.search(rf"^error: .*{run}.*No space left on device", output, re.MULTILINE)
    assert "Traceback" not in output
    assert (run / "run.json").exists() == (pages > 1)
