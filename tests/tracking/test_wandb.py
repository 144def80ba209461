"""Real wandb, offline: what it has written must equal `metrics.jsonl`."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distcls.errors import UserError
from distcls.tracking.jsonl import MetricsLog, read_rows
from distcls.tracking.wandb import WandbTracker
from distcls.tracking.wandb_access import wanted_mode
from distcls.tracking.wandb_file import history, records, values
from distcls.tracking.wandb_service import service_pids
from tests.engine.launching import HANGS_S

pytestmark = pytest.mark.usefixtures("no_wandb_account")


def train_row(step):
    metrics = {"train/loss": 1 / step, "train/top1": step / 100, "optim/lr": 0.1, "perf/img_per_s": 5000.5}
    return {"step": step, "epoch": step / 10, "samples": step * 8, **metrics}


def val_row(step, best):
    val = {"val/loss": 2 / step, "val/top1": step / 50, "val/top5": 0.9, "val/n": 10000, "best/val_top1": best}
    return {"step": step, "epoch": step / 10, "samples": step * 8, **val}


def segments(run_folder):
    return sorted(run_folder.glob("wandb/*run-*/*.wandb"))


def of_type(path, kind):
    return [getattr(record, kind) for record in records(path) if record.WhichOneof("record_type") == kind]


def summary(path):
    return {name: value for change in of_type(path, "summary") for name, value in values(change.update).items()}


def config(path):
    return {name: value for run in of_type(path, "run") for name, value in values(run.config.update).items()}


def metrics_given_to_wandb(run_folder):
    """What a user finds in W&B, by step and metric; a metric that is there twice for a step fails."""
    found = {}
    for path in segments(run_folder):
        for row in history(path):
            for name, value in row.items():
                if "/" in name and not name.startswith("progress/"):
                    assert found.setdefault((row["progress/step"], name), value) is value, "logged twice"
    return found


def metrics_in_jsonl(run_folder):
    return {(row["step"], name): value for row in read_rows(run_folder) for name, value in row.items() if "/" in name}


def attempt(run_folder, number, **arguments):
    notes = []
    log = MetricsLog(run_folder, attempt=number)
    return log, WandbTracker(run_folder, "run0", note=notes.append, **arguments), notes


def test_an_offline_run_holds_exactly_the_rows_of_metrics_jsonl(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "r.yaml", "tracking.api_key=0123"])
    recipe = {"train": {"epochs": 3, "global_batch_size": 8}, "hub_token": "secret", "optimizer": {"lr": math.inf}}
    log, tracker, notes = attempt(tmp_path, 1, config=recipe, name="fmnist", tags=["quick"], notes="first")
    for step in range(1, 8):
        for row in (train_row(step), *([val_row(step, best=step / 50)] if step % 3 == 0 else [])):
            log.log(row)
            tracker.log(row)
    tracker.event("checkpoint", step=7, path=tmp_path / "step_00000007")
    tracker.finish("finished")

    (path,) = segments(tmp_path)
    assert metrics_given_to_wandb(tmp_path) == metrics_in_jsonl(tmp_path)
    rows = list(history(path))
    assert [(row["progress/step"], row["progress/samples"]) for row in rows][:3] == [(1, 8), (2, 16), (3, 24)]
    assert config(path) == {
        "_wandb": {},
        "train": {"epochs": 3, "global_batch_size": 8},
        "hub_token": "[redacted]",
        "optimizer": {"lr": "Infinity"},
    }
    assert summary(path)["best/val_top1"] == 6 / 50
    assert summary(path)["event/checkpoint"] == {"step": 7, "path": str(tmp_path / "step_00000007")}
    (run,) = of_type(path, "run")
    assert (run.run_id, run.project, run.display_name, run.notes) == ("run0", "distcls", "fmnist", "first")
    assert list(run.tags) == ["quick"]
    assert [end.exit_code for end in of_type(path, "exit")] == [0]
    steps = {m.glob_name: m.step_metric for m in of_type(path, "metric") if m.glob_name}
    assert steps == {"*": "progress/samples"}
    assert ["r.yaml", "tracking.api_key=[redacted]"] in [list(e.args) for e in of_type(path, "environment")]
    assert notes == [f"W&B: offline (no API key). To upload it later: distcls track sync {tmp_path}"]
    assert capfd.readouterr() == ("", "")


def test_nan_reaches_wandb(tmp_path):
    _, tracker, _ = attempt(tmp_path, 1)
    tracker.log({"step": 1, "epoch": 0.1, "samples": 8, "train/loss": math.nan})
    tracker.finish("failed", "NonFiniteLoss: nan at step 1")
    (path,) = segments(tmp_path)
    (row,) = history(path)
    assert math.isnan(row["train/loss"])
    assert summary(path)["message"] == "NonFiniteLoss: nan at step 1"
    assert [end.exit_code for end in of_type(path, "exit")] == [1]


def test_a_rollback_logs_no_row_twice_and_keeps_the_best(tmp_path):
    log, tracker, _ = attempt(tmp_path, 1)
    for row in (train_row(10), val_row(10, best=0.2), train_row(20)):
        log.log(row)
        tracker.log(row)
    tracker.finish("preempted", "SIGTERM")  # before the evaluation of step 20
    first = segments(tmp_path)[0]
    assert len(of_type(first, "preempting")) == 1
    assert [end.exit_code for end in of_type(first, "exit")] == [143]

    log, tracker, _ = attempt(tmp_path, 2)
    for row in (train_row(20), val_row(20, best=0.4), train_row(30)):
        log.log(row)
        tracker.log(row)
    tracker.finish("finished")
    _, second = segments(tmp_path)
    assert [(row["progress/step"], "val/loss" in row) for row in history(second)] == [(20, True), (30, False)]
    assert metrics_given_to_wandb(tmp_path) == metrics_in_jsonl(tmp_path)
    assert summary(second)["best/val_top1"] == 0.4
    assert {run.run_id for path in segments(tmp_path) for run in of_type(path, "run")} == {"run0"}


def test_steps_taken_again_with_an_allowed_change_are_logged_again(tmp_path):
    """Their numbers are others: W&B must not go on showing the old learning rate's."""
    for number, factor in ((1, 1.0), (2, 3.0), (3, 3.0)):
        log, tracker, _ = attempt(tmp_path, number)
        if number > 1:
            resumed = {"step": 10 * (number - 1), "allowed": ["optimizer.lr"] if number == 2 else []}
            log.event("resumed", **resumed)
            tracker.event("resumed", **resumed)
        for step in (10, 20, 30)[number - 1 :]:
            row = train_row(step) | {"train/loss": factor / step}
            log.log(row)
            tracker.log(row)
        tracker.finish("preempted")
    given = [[(row["progress/step"], row["train/loss"]) for row in history(file)] for file in segments(tmp_path)]
    assert given == [[(10, 0.1), (20, 0.05), (30, 1 / 30)], [(20, 0.15), (30, 0.1)], []]


def test_the_best_value_is_in_the_summary_right_after_a_resume(tmp_path):
    log, tracker, _ = attempt(tmp_path, 1)
    log.log(val_row(10, best=0.2))
    tracker.log(val_row(10, best=0.2))
    tracker.finish("preempted")
    _, tracker, _ = attempt(tmp_path, 2)
    tracker.finish("preempted")
    assert summary(segments(tmp_path)[1])["best/val_top1"] == 0.2


RUN_UNTIL_KILLED = """
import os, signal, sys, time
from pathlib import Path
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.wandb import WandbTracker
from distcls.tracking.wandb_file import history
from distcls.tracking.wandb_service import service_pids
from tests.tracking.test_wandb import segments, train_row
folder = Path(sys.argv[1])
log = MetricsLog(folder, attempt=1)
tracker = WandbTracker(folder, "run0")
for step in range(1, 41):
    log.log(train_row(step))
    tracker.log(train_row(step))
    if step == 20:  # the first half is written by wandb, the second half is not
        while sum(1 for file in segments(folder) for row in history(file)) < 20:
            time.sleep(0.01)
        (service,) = service_pids()
        os.kill(service, signal.SIGSTOP)
print("logged", flush=True)
sys.stdin.read()
"""


def test_rows_that_sigkill_kept_from_wandb_are_added_by_the_next_attempt(tmp_path):
    command = [sys.executable, "-c", RUN_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        while run.stdout.readline() != b"logged\n":
            assert run.poll() is None
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        for pid in (run.pid, *map(int, children)):  # a cluster kills the whole job
            os.kill(pid, signal.SIGKILL)
    assert len(list(history(segments(tmp_path)[0]))) == 20
    log, tracker, _ = attempt(tmp_path, 2)
    for step in range(31, 51):
        log.log(train_row(step))
        tracker.log(train_row(step))
    tracker.finish("finished")
    assert metrics_given_to_wandb(tmp_path) == metrics_in_jsonl(tmp_path)
    assert len(read_rows(tmp_path)) == 50


def test_a_service_that_dies_with_its_job_costs_nothing(tmp_path):
    """SLURM's SIGTERM goes to all processes of a job, wandb's service among them."""
    log, tracker, notes = attempt(tmp_path, 1)
    for step in range(1, 6):
        log.log(train_row(step))
        tracker.log(train_row(step))
        if step == 3:
            (pid,) = service_pids()
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
                time.sleep(0.01)
    tracker.finish("preempted", "SIGTERM")
    assert metrics_given_to_wandb(tmp_path) == metrics_in_jsonl(tmp_path)
    last = segments(tmp_path)[-1]
    assert len(of_type(last, "preempting")) == 1
    assert [end.exit_code for end in of_type(last, "exit")] == [143]
    assert notes[1] == "W&B: its service is gone (ConnectionResetError): the rest is added when the run closes"


def test_a_service_that_hangs_holds_up_training_once(tmp_path, monkeypatch):
    monkeypatch.setattr("distcls.tracking.wandb.ANSWER_SECONDS", 0.5)
    before = service_pids()
    log, tracker, notes = attempt(tmp_path, 1)
    (pid,) = set(service_pids()) - set(before)
    os.kill(pid, signal.SIGSTOP)
    step = 0
    while len(notes) == 1:  # what fits into the socket
        step += 1
        log.log(train_row(step))
        tracker.log(train_row(step))
    log.log(train_row(step + 1))
    tracker.log(train_row(step + 1))
    tracker.finish("finished")
    assert notes[1] == "W&B: no answer from its service in 0.5 s: the rest is added when the run closes"
    assert metrics_given_to_wandb(tmp_path) == metrics_in_jsonl(tmp_path)
    assert len(read_rows(tmp_path)) == step + 1


def test_a_damaged_file_is_named_and_nothing_is_logged_twice(tmp_path):
    log, tracker, _ = attempt(tmp_path, 1)
    log.log(train_row(1))
    tracker.log(train_row(1))
    tracker.finish("preempted")
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[20] ^= 255
    path.write_bytes(data)
    _, tracker, notes = attempt(tmp_path, 2)
    tracker.log(train_row(1))
    tracker.finish("finished")
    assert notes[1] == f"W&B: {path} is damaged at byte 7: rows of earlier attempts that it lacks are not added"
    assert list(history(segments(tmp_path)[1])) == []


ONE_ROW = """
import sys
from pathlib import Path
from distcls.tracking.wandb import WandbTracker
from tests.tracking.test_wandb import train_row
tracker = WandbTracker(Path(sys.argv[1]), "run0")
tracker.log(train_row(1))
tracker.finish("finished")
"""


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "no API key"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "0" * 40}, "WANDB_MODE=offline"),
        ({"WANDB_MODE": ""}, "no API key"),
        ({"WANDB_API_KEY": "0" * 40}, "{url} does not answer: [Errno 111] Connection refused"),
    ],
)
def test_without_key_or_server_a_run_is_offline_and_asks_nothing(tmp_path, environment, why):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        run = subprocess.run(
            [sys.executable, "-c", ONE_ROW, str(tmp_path)],
            env={**os.environ, "WANDB_BASE_URL": url, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS_S,
        )
    assert (run.returncode, run.stderr) == (0, "")
    sync = f"distcls track sync {tmp_path}"
    assert run.stdout == f"W&B: offline ({why.format(url=url)}). To upload it later: {sync}\n"
    assert len(list(history(segments(tmp_path)[0]))) == 1
    assert not (tmp_path / "home").exists()  # nothing is left under the home folder


def test_online_without_a_key_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError) as caught:
        WandbTracker(tmp_path, "run0", mode="online")
    assert str(caught.value) == (
        "tracking.mode: no W&B API key, but the mode is online. Run `wandb login`, set WANDB_API_KEY,"
        " or take tracking.mode=auto (offline without a key)"
    )


def test_a_key_of_wandb_login_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9\n  login user\n  password {'0' * 40}\n")
    assert wanted_mode("auto") == ("offline", "http://127.0.0.1:9 does not answer: [Errno 111] Connection refused")


def test_the_log_of_a_run_is_strict_json(tmp_path):
    _, tracker, _ = attempt(tmp_path, 1, config={"x": math.nan})
    tracker.finish("finished")
    (run,) = of_type(segments(tmp_path)[0], "run")
    for item in run.config.update:
        json.loads(item.value_json, parse_constant=pytest.fail)
