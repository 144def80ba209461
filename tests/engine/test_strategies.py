"""Every strategy with two processes and through `kill -9`: it trains what DDP trains, and goes on as if nothing had been.

The runs here use everything that a strategy has a part in: accumulation, clipping, a moving average, a frozen layer,
BatchNorm, and AdamW, whose state has moments and a count. What is too long for every day runs by

    DISTCLS_LONG=1 bash launch/test.sh tests/engine/test_strategies.py
"""

import json
import os
import shutil

import pytest
import torch

import distcls
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.tracking.jsonl import read_rows
from tests.engine.launching import ACCELERATE_TWO, PLAIN, TORCHRUN, finish, held, launch, start
from tests.engine.test_resume import assert_same_run, steps_logged, trainers, wait_for_step

pytestmark = pytest.mark.slow
STRATEGIES = ["ddp", "zero1", "zero2", "zero3", "fsdp2"]
long = pytest.mark.skipif("DISTCLS_LONG" not in os.environ, reason="minutes: DISTCLS_LONG=1 runs it")
SETTINGS = ["train.epochs=null", "train.max_steps=24", "train.log_every_steps=1"]
SETTINGS += ["train.accumulation_steps=2", "train.clip_grad_norm=1.0", "train.ema={decay: 0.8, buffers: average}"]
SETTINGS += ["optimizer.type=AdamW", "optimizer.lr=0.01", "model.freeze=[backbone.layer1]"]

# What the model says in the moment of its export, beside the exported file.
PLUGIN = """
from contextlib import nullcontext
import torch
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.checkpoints.tensor_file import save_weights
from distcls.engine.strategies.buffers import averaged_buffers

write = Snapshots.export

@torch.no_grad()
def export(self, name, progress):
    write(self, name, progress)
    job = self._job
    model = job.strategy.model
    training = job.classifier.training
    model.eval()
    with job.ema.applied() if job.ema else nullcontext(), averaged_buffers(job.classifier, job.world_size):
        logits = model(torch.linspace(-2, 2, 2 * 3 * 16 * 16).view(2, 3, 16, 16))
    model.train(training)
    if job.rank == 0:
        save_weights(self._weights / f"{name}_logits.safetensors", {"logits": logits}, {})

Snapshots.export = export
"""


@pytest.fixture(scope="module")
def recipe(tiny_data, tmp_path_factory):
    """A recipe whose runs are kept for the tests of this module, which compare them."""
    from tests.conftest import TINY_RECIPE

    folder = tmp_path_factory.mktemp("strategies")
    (folder / "live.py").write_text(PLUGIN)
    text = TINY_RECIPE.format(out=folder / "unused", data=tiny_data)
    (folder / "tiny.yaml").write_text(f"plugins: [./live.py]\n{text}")
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def whole(recipe):
    """Strategy -> the folder of an undisturbed run on two ranks; trained once."""
    done = {}

    def run(strategy):
        if strategy not in done:
            done[strategy] = recipe.parent / strategy
            code, output = launch(TORCHRUN, recipe, *SETTINGS, *of(strategy, done[strategy]))
            assert code == 0, output
        return done[strategy]

    return run


def of(strategy, folder):
    return [f"distributed.strategy={strategy}", f"output_dir={folder}"]


def killed(recipe, strategy, folder, step):
    """A run on two ranks whose processes were all killed after `step`."""
    process = start(held(TORCHRUN, step + 8), recipe, *SETTINGS, *of(strategy, folder))
    wait_for_step(process, folder, step)
    for trainer in trainers(process):
        trainer.kill()
    finish(process)
    assert step <= steps_logged(folder) < 24


def rows_of(folder, prefix):
    return [row for row in read_rows(folder) if any(name.startswith(prefix) for name in row)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trains_evaluates_and_exports_what_ddp_does(strategy, whole):
    run, reference = whole(strategy), whole("ddp")
    for ours, theirs in zip(rows_of(run, "train/"), rows_of(reference, "train/"), strict=True):
        for name in ("train/loss", "optim/grad_norm", "optim/lr"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3), (ours["step"], name)
    assert [row["val/n"] for row in rows_of(run, "val/")] == [103, 103, 103]
    assert json.loads((run / "run.json").read_text())["attempts"][0]["world_size"] == 2
    ours, theirs = (load_weights(folder / "weights/last.safetensors")[0] for folder in (run, reference))
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }
    model = distcls.load(run / "weights/last.safetensors")
    with torch.no_grad():
        logits = model(torch.linspace(-2, 2, 2 * 3 * 16 * 16).view(2, 3, 16, 16))
    assert torch.allclose(logits, load_weights(run / "weights/last_logits.safetensors")[0]["logits"], atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])  # of ddp: test_resume.py
def test_a_kill_changes_nothing(strategy, recipe, whole):
    run = recipe.parent / f"{strategy}_killed"
    killed(recipe, strategy, run, 6)
    shutil.copytree(run, recipe.parent / f"{strategy}_elastic", ignore=shutil.ignore_patterns(".*"))
    code, output = launch(TORCHRUN, recipe, *SETTINGS, *of(strategy, run))
    assert code == 0, output
    assert "attempt 2: going on from step" in output
    assert_same_run(whole(strategy), run)


@pytest.mark.parametrize(
    ("first", "then", "last"),
    [
        ("zero2", "zero2", "zero2"),
        ("zero3", "zero3", "zero3"),
        ("fsdp2", "fsdp2", "fsdp2"),
        pytest.param("ddp", "ddp", "ddp", marks=long),
        pytest.param("zero1", "zero1", "zero1", marks=long),
        pytest.param("zero1", "fsdp2", "ddp", marks=long),
        pytest.param("fsdp2", "ddp", "zero3", marks=long),
        pytest.param("zero3", "zero2", "fsdp2", marks=long),
    ],
)
def test_from_two_ranks_to_one_and_back(first, then, last, recipe, whole, tmp_path):
    """The same batches at the same rates; the numbers differ a little, since BatchNorm belongs to a micro-batch."""
    run, begun = tmp_path / "run", recipe.parent / f"{first}_elastic"
    if begun.exists():
        shutil.copytree(begun, run)
    else:
        killed(recipe, first, run, 6)
    process = start(held(PLAIN, 18), recipe, *SETTINGS, *of(then, run))
    wait_for_step(process, run, 10)
    process.terminate()
    code, output = finish(process)
    assert code == 75, output
    code, output = launch(TORCHRUN, recipe, *SETTINGS, *of(last, run))
    assert code == 0, output
    rows, reference = rows_of(run, "train/"), rows_of(whole(first), "train/")
    for name in ("step", "samples", "optim/lr"):
        assert [row[name] for row in rows] == [row[name] for row in reference]
    for ours, theirs in zip(rows, reference, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=0.2), ours["step"]
    attempts = json.loads((run / "run.json").read_text())["attempts"]
    assert [attempt["world_size"] for attempt in attempts] == [2, 1, 2]


@long
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bf16_and_checkpointed_activations(strategy, recipe, whole, tmp_path):
    """Half precision is DDP's half precision, and computing activations again changes no number at all."""
    if strategy not in (kept := whole.__dict__.setdefault("bf16", {})):
        for name in {"ddp", strategy} - set(kept):
            kept[name] = recipe.parent / f"{name}_bf16"
            code, output = launch(ACCELERATE_TWO, recipe, *SETTINGS, *of(name, kept[name]), "train.precision=bf16")
            assert code == 0, output
    settings = [*SETTINGS, "train.precision=bf16", "distributed.activation_checkpointing=true"]
    code, output = launch(TORCHRUN, recipe, *settings, *of(strategy, tmp_path / "run"))
    assert code == 0, output
    for ours, theirs in zip(rows_of(kept[strategy], "train/"), rows_of(kept["ddp"], "train/"), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=2e-2)
    assert_same_run(kept[strategy], tmp_path / "run")


@long
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_compiled_is_the_same_run(strategy, recipe, whole, tmp_path):
    settings = [*SETTINGS, "train.compile=true"]
    code, output = launch(TORCHRUN, recipe, *settings, *of(strategy, tmp_path / "run"), timeout=900)
    assert code == 0, output
    for ours, theirs in zip(rows_of(tmp_path / "run", "train/"), rows_of(whole(strategy), "train/"), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-2)
    names = [set(load_weights(run / "weights/last.safetensors")[0]) for run in (tmp_path / "run", whole(strategy))]
    assert names[0] == names[1]
