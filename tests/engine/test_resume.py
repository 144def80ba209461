"""Kills and signals through the launchers that users use; what comes out must be the run that nobody disturbed."""

import json
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.stopping.agreement import LAG
from distcls.tracking.jsonl import read_rows
from distcls.tracking.tracker import kind_of
from tests.conftest import TINY_RECIPE
from tests.engine.launching import ACCELERATE_ONE, ACCELERATE_TWO, HANGS_S, PLAIN, finish, held, launch, start


def steps_logged(run: Path) -> int:
    """How far the run is, by its own record."""
    file = run / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait_for_step(process, run: Path, step: int) -> None:
    """Wait until the run has logged `step`. One that is held at a later step cannot have ended by then."""
    deadline = time.monotonic() + HANGS_S
    while steps_logged(run) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def trainers(process) -> list[psutil.Process]:
    """The training processes below a launcher, by rank, or the process itself without one."""
    own = psutil.Process(process.pid)
    children = [child for child in own.children(recursive=True) if "train.py" in " ".join(child.cmdline())]
    return sorted(children, key=lambda child: int(child.environ().get("RANK", "0"))) or [own]


def assert_same_run(one: Path, two: Path) -> None:
    """Bit for bit: weights, and every logged value that does not measure time."""
    ours, theirs = load_weights(one / "weights/last.safetensors")[0], load_weights(two / "weights/last.safetensors")[0]
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []
    rows = [
        [
            {key: row[key] for key in row if not key.startswith(("perf/", "attempt", "time"))}
            for row in read_rows(run)
            if kind_of(row) != "perf"  # the shares of time at the end of an epoch or an attempt
        ]
        for run in (one, two)
    ]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def undisturbed(tiny_data, tmp_path_factory):
    """The run of `tiny_recipe`, trained once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY_RECIPE.format(out=folder / "run", data=tiny_data))
    code, output = launch(PLAIN, folder / "tiny.yaml")
    assert code == 0, output
    return folder / "run"


def test_three_kills_change_nothing(tiny_recipe, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={whole}", "train.epochs=9")
    assert code == 0, output
    for moment in sorted(random.Random(7).sample(range(4, 50), 3)):
        process = start(held(PLAIN, moment + 8), tiny_recipe, f"output_dir={run}", "train.epochs=9")
        wait_for_step(process, run, moment)
        time.sleep(random.Random(moment).uniform(0, 0.1))
        process.kill()
        finish(process)
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={run}", "train.epochs=9")
    assert code == 0, output
    assert_same_run(whole, run)
    state = json.loads((run / "run.json").read_text())
    assert [attempt["status"] for attempt in state["attempts"]] == ["killed"] * 3 + ["finished"]


@pytest.mark.parametrize(("number", "goes_on"), [(signal.SIGTERM, False), (signal.SIGUSR2, True)])
def test_a_signal_saves_within_a_few_steps(number, goes_on, tiny_recipe, undisturbed, tmp_path):
    """What is saved is the same for both: one of them goes on."""
    run = tmp_path / "stopped"
    process = start(held(PLAIN, 12), tiny_recipe, f"output_dir={run}", "checkpoint.every_steps=1000")
    wait_for_step(process, run, 4)
    process.send_signal(number)
    code, output = finish(process)
    assert code == 75, output
    assert "start the same command again to go on" in output
    state = json.loads((run / "run.json").read_text())
    assert (state["status"], state["attempts"][0]["message"]) == ("preempted", number.name)
    (saved,) = (run / "checkpoints").iterdir()
    assert 4 <= int(saved.name.removeprefix("step_")) <= 12 + 1 + LAG
    if goes_on:
        code, output = launch(PLAIN, tiny_recipe, f"output_dir={run}", "checkpoint.every_steps=1000")
        assert code == 0, output
        assert_same_run(undisturbed, run)


def test_a_kill_changes_nothing_with_average_clipping_and_accumulation(tiny_recipe, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    settings = [
        "train.ema={decay: 0.9, buffers: average}",
        "train.clip_grad_norm=1.0",
        "train.accumulation_steps=2",
        "optimizer.type=AdamW",
    ]
    settings += ["optimizer.lr=0.01", "train.precision=bf16", "train.channels_last=true"]
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={whole}", *settings)
    assert code == 0, output
    process = start(held(PLAIN, 18), tiny_recipe, f"output_dir={run}", *settings)
    wait_for_step(process, run, 10)
    process.kill()
    finish(process)
    code, output = launch(PLAIN, tiny_recipe, f"output_dir={run}", *settings)
    assert code == 0, output
    assert_same_run(whole, run)
    last = read_rows(run)[-1]
    assert last["val_ema/n"] == 103
    assert last["val_ema/loss"] != last["val/loss"]
    average, raw = export(run / "checkpoints" / "step_00000030", tmp_path), export(run, tmp_path, "--raw")
    exported = load_weights(run / "weights" / "last.safetensors")[0]
    assert [name for name in exported if not average[name].equal(exported[name])] == []
    differ = {name for name in raw if not raw[name].equal(average[name])}
    assert differ == {name for name in raw if "num_batches" not in name}, "weights and BatchNorm's statistics"


def export(source: Path, folder: Path, *options: str) -> dict[str, torch.Tensor]:
    file = folder / "exported.safetensors"
    result = CliRunner().invoke(app, ["checkpoint", "export", str(source), "-o", str(file), *options])
    assert result.exit_code == 0, result.output
    return load_weights(file)[0]


def test_accelerate_launch_killed_by_sigterm_leaves_a_saved_run(tiny_recipe, undisturbed, tmp_path):
    """The launcher dies of SIGTERM at once and orphans its worker, which saves all the same."""
    run = tmp_path / "orphan"
    process = start(held(ACCELERATE_ONE, 12), tiny_recipe, f"output_dir={run}", "checkpoint.every_steps=1000")
    wait_for_step(process, run, 4)
    (worker,) = trainers(process)
    process.terminate()
    finish(process)
    worker.wait(HANGS_S)
    assert json.loads((run / "run.json").read_text())["status"] == "preempted"
    code, output = launch(ACCELERATE_ONE, tiny_recipe, f"output_dir={run}", "checkpoint.every_steps=1000")
    assert code == 0, output
    assert_same_run(undisturbed, run)


def test_two_ranks_stop_together_when_one_is_asked(tiny_recipe, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    code, output = launch(ACCELERATE_TWO, tiny_recipe, f"output_dir={whole}")
    assert code == 0, output
    process = start(held(ACCELERATE_TWO, 12), tiny_recipe, f"output_dir={run}", "checkpoint.every_steps=1000")
    wait_for_step(process, run, 4)
    workers = trainers(process)
    assert len(workers) == 2
    workers[1].send_signal(signal.SIGUSR2)
    code, output = finish(process)
    assert json.loads((run / "run.json").read_text())["status"] == "preempted", output
    code, output = launch(ACCELERATE_TWO, tiny_recipe, f"output_dir={run}", "checkpoint.every_steps=1000")
    assert code == 0, output
    assert_same_run(whole, run)


def test_from_two_ranks_to_one(tiny_recipe, tmp_path):
    """Same batches and learning rates; the numbers differ, since BatchNorm belongs to a micro-batch."""
    run = tmp_path / "run"
    process = start(held(ACCELERATE_TWO, 20), tiny_recipe)
    wait_for_step(process, run, 12)
    process.terminate()
    finish(process)
    code, output = launch(PLAIN, tiny_recipe)
    assert code == 0, output
    rows = [row for row in read_rows(run) if "train/loss" in row]
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20, 24, 28, 30]
    state = json.loads((run / "run.json").read_text())
    assert [attempt["world_size"] for attempt in state["attempts"]] == [2, 1]
