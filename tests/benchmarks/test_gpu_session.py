"""The benchmarks that are kept for a borrowed GPU, in their small sizes: minutes there are too few to mend a script."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from distcls.engine.attempt.preparing import prepare

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(name)


@pytest.mark.slow
def test_every_phase_runs_in_its_small_size(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "gpu_session.py", "--small", "--out", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    shown = done.stdout.rpartition("== data: status 0")[2]
    for row in ("ceiling, graphs @32", "trainer, raw @32", "data, jpeg 375x500 q90: training @32", "ddp fp32"):
        assert row in shown


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(monkeypatch):
    session = script("gpu_session", monkeypatch)
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    child = subprocess.Popen(
        [sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout.readline() == "1\n"
    assert session.ended(child, 0.0) < 0
    assert child.stdout.read() == ""  # nobody has it open any more


def test_figures_stand_beside_their_goals(tmp_path, monkeypatch):
    session = script("gpu_session", monkeypatch)
    trained = {
        "resident batch @224": {"images_per_second": 7000.4},
        "ffcv-imagenet style, jpeg @224": {"images_per_second": 4500.0},
        "trainer, raw @224": {
            "images_per_second": 6930.0,
            "share_of_resident": 0.99,
            "over_ffcv": 1.54,
            "seconds_to_first_step": 11.7,
        },
    }
    (tmp_path / "train.json").write_text(json.dumps({"rows": trained}))
    (tmp_path / "tests.log").write_text("....F\n1 failed, 83 passed in 60.0s\n")
    assert list(session.summary(tmp_path)) == [
        ("resident batch @224", "7,000 images/s", ""),
        ("ffcv-imagenet style, jpeg @224", "4,500 images/s", ""),
        ("trainer, raw @224", "6,930 images/s, 0.990 of resident", ">= 0.98 of it"),
        ("... over the ffcv-imagenet style", "1.54", ">= 1.37"),
        ("... to the first step", "12 s", "<= 15"),
        ("tests on the GPU", "1 failed, 83 passed in 60.0s", "0 failed"),
    ]


def test_every_strategys_recipe_is_right_where_there_is_a_gpu(tmp_path, tiny_data, monkeypatch):
    strategies = script("strategies", monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    recipe = tmp_path / "recipe.yaml"
    text = strategies.RECIPE.format(beton=tiny_data / "train.beton", steps=40)
    recipe.write_text(text.replace("num_classes: 10", "num_classes: 5").replace("topk: [1, 5]", "topk: [1]"))
    for overrides in (strategies.CASES | strategies.RESUMES).values():
        prepare(recipe, overrides, 1)


def test_a_first_convolution_with_a_channel_of_zeros_is_the_one_without(monkeypatch):
    wide = script("ceiling", monkeypatch).WideConv2d(3, 8, 7, stride=2, padding=3, bias=False)
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    padded = nn.functional.pad(images, (0, 0, 0, 0, 0, 1))
    assert padded.is_contiguous(memory_format=torch.channels_last)
    expected = nn.functional.conv2d(images, wide.weight, stride=2, padding=3)
    torch.testing.assert_close(wide(padded), expected)
    wide(padded).sum().backward()
    assert wide.weight.grad.shape == (8, 3, 7, 7)
