"""Real wandb against a server that fails while a run trains: nothing is lost, nothing is there twice, nothing waits."""

import json
import os
import subprocess
import sys

import pytest
import wandb

from distcls.tracking.jsonl import read_rows
from distcls.tracking.wandb_file import history
from tests.engine.launching import HANGS_S
from tests.tracking.test_wandb import attempt as offline_attempt
from tests.tracking.test_wandb import metrics_in_jsonl, segments, train_row
from tests.tracking.test_wandb_sync import TRACKING, arrived, track_sync

pytestmark = [pytest.mark.usefixtures("no_wandb_account"), pytest.mark.slow]

# Rows 1 to 5, then what the server does from now on, rows 6 to 10, then perhaps something else, then the end. Bounds are
# short where the server is gone, and else too long to matter on any machine.
ATTEMPT = """
import json, os, signal, sys, time, urllib.request
from pathlib import Path
from distcls.tracking import wandb
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.trackers import Trackers
from tests.tracking.test_wandb import train_row

folder, first, second, status, server = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])

def ask(path):
    with urllib.request.urlopen(os.environ["WANDB_BASE_URL"] + path) as answer:
        return json.load(answer)

def happens(what):
    if what == "gone":
        os.kill(server, signal.SIGKILL)
    elif what != "-":
        ask("/behave/" + what)

wandb.FINISH_SECONDS = dict.fromkeys(wandb.FINISH_SECONDS, 3.0 if "gone" in (first, second) else 900.0)
log = MetricsLog(folder, 1)
trackers = Trackers([log, wandb.WandbTracker(folder, "run0")])
for step in range(1, 11):
    if step == 6:
        happens(first)
    trackers.log(train_row(step))
while first in ("503", "429") and not ask("/refused"):
    time.sleep(0.01)
happens(second)  # comes only once all rows are logged: none of them has waited for the server
trackers.finish(status, "RuntimeError: the reason")
"""


def trained(folder, server, first, second, status):
    return server.client(ATTEMPT, folder, first, second, status, server.process.pid).stderr


@pytest.mark.parametrize("trouble", ["503", "429"])
def test_a_server_that_is_busy_for_a_while_gets_every_row_once(tmp_path, serve, trouble):
    server = serve("ok")
    assert trained(tmp_path, server, trouble, "ok", "finished") == ""
    got = server.got()
    assert arrived(got) == {
        (step, name): train_row(step)[name] for step in range(1, 11) for name in train_row(1) if "/" in name
    }
    assert got["exit_codes"] == [0]


@pytest.mark.parametrize("status", ["preempted", "failed"])
def test_a_server_that_is_gone_at_the_end_holds_nobody(tmp_path, serve, status):
    server = serve("ok")
    err = trained(tmp_path, server, "gone", "-", status)
    assert err.endswith(f"not everything was uploaded in time. To upload the rest: distcls track sync {tmp_path}\n")
    assert len(read_rows(tmp_path)) == 10
    # A new server knows nothing of the run, and gets all of it from what lies in the run folder.
    state = {"run_id": "run0", "status": status, "attempts": [{}], "recipe": {"name": "r", "tracking": TRACKING}}
    (tmp_path / "run.json").write_text(json.dumps(state))
    anew = serve("ok")
    code, _, said = track_sync(anew, tmp_path)
    assert (code, said) == (0, "")
    got = anew.got()
    assert arrived(got) == metrics_in_jsonl(tmp_path)
    assert got["exit_codes"] == [{"preempted": 143, "failed": 1}[status]]
    assert bool(got["preempting"]) is (status == "preempted")


def test_a_crash_is_marked_failed_with_its_text(tmp_path, serve):
    server = serve("ok")
    trained(tmp_path, server, "-", "-", "failed")
    got = server.got()
    assert got["exit_codes"] == [1]
    assert got["summary"]["message"] == "RuntimeError: the reason"
    assert got["preempting"] == 0


class TestWhatWeRelyOn:
    """Canaries: when one of these fails, wandb has changed, and the code that is named has to be looked at."""

    def test_offline_rows_carry_the_step_by_which_a_server_counts(self, tmp_path):
        """tracking/wandb.py tells from it what an online run's server has."""
        _, tracker, _ = offline_attempt(tmp_path, 1)
        assert tracker.run.starting_step == 0
        for step in (10, 20):
            tracker.log(train_row(step))
        tracker.finish("finished")
        assert [row["_step"] for row in history(segments(tmp_path)[0])] == [0, 1]

    def test_a_resumed_online_run_says_where_the_server_is(self, tmp_path, serve, monkeypatch):
        server = serve("ok")
        trained(tmp_path, server, "-", "-", "preempted")
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        _, tracker, _ = offline_attempt(tmp_path, 2, mode="online")
        assert tracker.run.starting_step == 10
        tracker.finish("finished")

    def test_wandb_sync_hides_its_errors(self, tmp_path, serve):
        """tracking/wandb_sync.py looks for the mark instead."""
        _, tracker, _ = offline_attempt(tmp_path, 1)
        tracker.log(train_row(1))
        tracker.finish("finished")
        (file,) = segments(tmp_path)
        for behaviour, synced in (("refuse", False), ("ok", True)):
            done = subprocess.run(
                [sys.executable, "-m", "wandb", "sync", str(file.parent)],
                env={**os.environ, "WANDB_BASE_URL": serve(behaviour).url, "WANDB_API_KEY": "0" * 40},
                capture_output=True,
                timeout=HANGS_S,
            )
            assert done.returncode == 0
            assert file.with_name(f"{file.name}.synced").exists() is synced

    def test_the_settings_that_bound_it(self):
        known = wandb.Settings.model_fields
        assert {"init_timeout", "finish_timeout", "finish_timeout_raises", "x_transaction_log_flush_interval"} <= set(
            known
        )
