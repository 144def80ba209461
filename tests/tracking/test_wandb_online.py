"""Real wandb against a server in a process of its own: what arrives, and that a bad server cannot hold a run."""

import pytest

from distcls.tracking.jsonl import read_rows
from tests.engine.launching import HANGS_S

pytestmark = pytest.mark.usefixtures("no_wandb_account")

ATTEMPT = """
import sys
from pathlib import Path
from distcls.tracking import wandb
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.trackers import Trackers
from tests.tracking.test_wandb import train_row, val_row
folder, attempt, first, last, status = Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5]
wandb.FINISH_SECONDS = dict.fromkeys(wandb.FINISH_SECONDS, float(sys.argv[6]))
log = MetricsLog(folder, attempt)
trackers = Trackers([log, wandb.WandbTracker(folder, "run0", config={"lr": 0.5})])
for step in range(first, last + 1):
    trackers.log(train_row(step))
    if step % 5 == 0:
        trackers.log(val_row(step, best=step / 50))
trackers.finish(status, "the reason")
"""


def attempt(folder, server, *arguments, closes_s=HANGS_S):
    """What one attempt at a run printed, the exit of its process included; its tracker has `closes_s` to close."""
    run = server.client(ATTEMPT, folder, *arguments, closes_s)
    return run.stdout, run.stderr


def test_two_attempts_are_one_run_with_every_row_once(tmp_path, serve):
    server = serve("ok")
    (tmp_path / "code.diff").write_text("+lr = 0.5\n")
    said = [attempt(tmp_path, server, 1, 1, 12, "preempted"), attempt(tmp_path, server, 2, 9, 20, "finished")]
    assert {out for out, _ in said} == {f"W&B: {server.url}/team/distcls/runs/run0\n"}
    assert {err for _, err in said} == {""}
    got = server.got()
    assert {run["id"] for run in got["runs"]} == {"run0"}
    arrived = [{name: value for name, value in row.items() if not name.startswith("_")} for row in got["history"]]
    metrics = {
        (row["progress/step"], name): value
        for row in arrived
        for name, value in row.items()
        if not name.startswith("progress/")
    }
    assert metrics == {
        (row["step"], name): value for row in read_rows(tmp_path) for name, value in row.items() if "/" in name
    }
    assert len(arrived) == 20 + 4  # 20 training rows, 4 evaluations, none twice
    assert got["summary"]["best/val_top1"] == 20 / 50
    assert got["exit_codes"] == [143, 0]
    assert got["preempting"] >= 1
    assert got["runs"][0]["config"]["lr"]["value"] == 0.5
    assert got["uploads"]["code.diff"] == "+lr = 0.5\n"


def test_a_server_that_hangs_is_left_when_grace_is_short(tmp_path, serve):
    server = serve("hang")
    _, err = attempt(tmp_path, server, 1, 1, 12, "preempted", closes_s=2)  # wandb itself would wait for good
    assert err == (
        "warning: WandbTracker failed while closing: TimeoutError: not everything was uploaded in time."
        f" To upload the rest: distcls track sync {tmp_path}\n"
    )
    assert len(read_rows(tmp_path)) == 14


def test_a_server_that_refuses_the_key_leaves_the_run_offline(tmp_path, serve):
    out, err = attempt(tmp_path, serve("refuse"), 1, 1, 3, "finished")
    assert out.startswith("W&B: offline (CommError: ")
    assert out.endswith(f"To upload it later: distcls track sync {tmp_path}\n")
    assert out.count("\n") == 1
    assert err == ""
