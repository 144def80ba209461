"""Checkpoints beside the training: what a slow, full or dying disk does to a run, and what it does not."""

import json
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from distcls.engine.checkpoints.background import Background, cpu_copies
from distcls.engine.checkpoints.commit import committed
from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.tracking.jsonl import read_events, read_rows
from tests.engine.launching import HANGS_S, PLAIN, finish, launch, start

SCRIPT = str(Path(__file__).with_name("slow_train.py"))
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT]


def slow(seconds, harm="none"):
    return [sys.executable, SCRIPT, str(seconds), harm]


def events_of(run, kind):
    return [event for event in read_events(run) if event["kind"] == kind]


def wait_until(condition, process):
    deadline = time.monotonic() + HANGS_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_work_goes_on_beside_and_its_result_is_collected_once():
    background, gate = Background(), threading.Event()
    background.start(lambda: gate.wait(HANGS_S) and "saved")
    assert not background.idle
    assert not background.done
    with pytest.raises(TimeoutError, match=r"^not done within 0\.01 s$"):
        background.collect(0.01)
    gate.set()
    assert background.collect() == "saved"
    assert background.idle


def test_what_the_work_raised_is_raised_where_it_is_collected():
    def fail():
        raise OSError("full")

    background = Background()
    background.start(fail)
    with pytest.raises(OSError, match="full"):
        background.collect()
    assert background.idle
    background.start(lambda: 1)
    assert background.collect() == 1


def test_copies_are_apart_from_their_originals_and_keep_bits_and_strides():
    weight = torch.nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
    files = {"model": {"weight": weight, "count": torch.tensor(3)}, "ema": {}}
    before = weight.detach().clone()
    copies = cpu_copies(files)
    with torch.no_grad():
        weight.zero_()
        files["model"]["count"] += 1
    assert copies["model"]["weight"].equal(before)
    assert copies["model"]["weight"].stride() == before.stride()
    assert not copies["model"]["weight"].requires_grad
    assert copies["model"]["count"].item() == 3
    assert copies["ema"] == {}


def test_training_goes_on_while_a_slow_disk_writes(tiny_recipe, tmp_path):
    """The save at step 8 writes nothing until the training waits for it, then takes 3 x 0.4 s."""
    settings = ["train.log_every_steps=1", "checkpoint.every_steps=8", "eval.every_epochs=10"]
    code, output = launch(slow(0.4, "busy@8"), tiny_recipe, *settings)
    assert code == 0, output
    run = tmp_path / "run"
    saved = events_of(run, "checkpoint")
    assert [event["step"] for event in saved] == [8, 16, 24, 30]
    rows = read_rows(run)
    first = saved[0]
    trained = [row for row in rows if "train/loss" in row]
    beside = [row["step"] for row in trained if row["step"] > 8 and row["time"] < first["time"]]
    assert beside == list(range(9, 17)), "the first save held the training up"
    assert first["seconds"] >= 1.2
    # One copy in memory at most: the save at 16 waited for the one at 8, and the row after it says how long.
    stalls = {row["step"]: row["perf/checkpoint_stall_s"] for row in rows if "perf/checkpoint_stall_s" in row}
    assert list(stalls) == [9, 17, 25]
    assert stalls[17] >= 1.2
    # What was saved is the state of its step, not of the steps that ran meanwhile.
    state = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**state, "status": "preempted"}))
    shutil.rmtree(run / "checkpoints" / "step_00000030")
    whole = load_weights(run / "weights" / "last.safetensors")[0]
    code, output = launch(PLAIN, tiny_recipe, *settings)
    assert code == 0, output
    ours = load_weights(run / "weights" / "last.safetensors")[0]
    assert [name for name in whole if not whole[name].equal(ours[name])] == []


def test_a_kill_while_a_save_is_under_way_loses_nothing_acknowledged(tiny_recipe, tmp_path):
    run = tmp_path / "run"
    process = start(slow(0.3), tiny_recipe, "train.epochs=9")
    wait_until(lambda: len(events_of(run, "checkpoint")) >= 2, process)
    acknowledged = events_of(run, "checkpoint")[-1]["step"]
    wait_until(lambda: any(path.name.startswith(".tmp") for path in (run / "checkpoints").iterdir()), process)
    process.kill()
    finish(process)
    assert int(committed(run / "checkpoints")[0].name.removeprefix("step_")) >= acknowledged > 0
    code, output = launch(PLAIN, tiny_recipe, "train.epochs=9")
    assert code == 0, output


def test_a_stop_waits_for_the_save_under_way_and_a_second_signal_breaks_nothing(tiny_recipe, tmp_path):
    run = tmp_path / "run"
    process = start(slow(0.5), tiny_recipe, "checkpoint.every_steps=5", "train.epochs=9", "train.log_every_steps=1")
    wait_until(lambda: any((run / "checkpoints").glob(".tmp*")), process)
    process.send_signal(signal.SIGUSR2)
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    steps = [event["step"] for event in events_of(run, "checkpoint")]
    assert steps[0] == 5
    assert len(steps) >= 2, "the step at which it stopped is saved, after the one under way"
    assert int(committed(run / "checkpoints")[0].name.removeprefix("step_")) == steps[-1]


def test_a_periodic_save_that_fails_costs_a_warning_and_the_last_one_the_run(tiny_recipe, tmp_path):
    code, output = launch(slow(0, "full@8"), tiny_recipe)
    assert code == 0, output
    path = tmp_path / "run" / "checkpoints" / "step_00000008"
    reason = (
        f"checkpoint {path} was not written: [Errno 28] No space left on device. Earlier checkpoints are untouched."
    )
    assert reason in output
    (event,) = events_of(tmp_path / "run", "checkpoint_failed")
    assert (event["step"], event["reason"]) == (8, reason)

    code, output = launch(slow(0, "full@30"), tiny_recipe, f"output_dir={tmp_path / 'last'}")
    assert code == 1
    assert "error: checkpoint " in output
    assert "Traceback" not in output
    assert json.loads((tmp_path / "last" / "run.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_a_rank_killed_in_the_middle_of_a_save_ends_both_and_the_run_goes_on(tiny_recipe, tmp_path):
    run = tmp_path / "run"
    code, output = launch(TWO, 0.1, "die@12", tiny_recipe)
    assert code != 0
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tiny_recipe) in (one.info["cmdline"] or [])]
    assert committed(run / "checkpoints")[0].name == "step_00000008", output
    code, output = launch(TWO, 0, "none", tiny_recipe)
    assert code == 0, output
    assert [attempt["world_size"] for attempt in json.loads((run / "run.json").read_text())["attempts"]] == [2, 2]
