"""`distcls track sync` against a server in a process of its own: everything arrives once, and every error is said."""

import json
import os
import subprocess
import sys
import urllib.request

import pytest

from distcls.tracking.jsonl import MetricsLog, read_rows
from distcls.tracking.wandb import WandbTracker
from tests.engine.launching import HANGS_S
from tests.tracking.test_wandb import metrics_in_jsonl, segments, train_row
from tests.tracking.test_wandb_online import attempt

pytestmark = [pytest.mark.usefixtures("no_wandb_account"), pytest.mark.slow]

COMMAND = [sys.executable, "-c", "from distcls.cli.main import main; main()", "track", "sync"]
TRACKING = {"project": "distcls", "entity": None, "name": None, "group": None, "tags": [], "notes": None}


def offline_run(folder, status="finished"):
    """A run of three offline attempts: preempted, failed, finished."""
    for number, (first, last, end) in enumerate([(1, 4, "preempted"), (5, 8, "failed"), (9, 10, status)], 1):
        log = MetricsLog(folder, number)
        tracker = WandbTracker(folder, "run0", mode="offline", note=lambda text: None)
        for step in range(first, last + 1):
            log.log(train_row(step))
            tracker.log(train_row(step))
        tracker.finish(end, "why")
    state = {"run_id": "run0", "status": status, "attempts": [{}], "recipe": {"name": "r", "tracking": TRACKING}}
    (folder / "run.json").write_text(json.dumps(state))


def track_sync(server, *arguments, key="0" * 40):
    run = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={
            **os.environ,
            "WANDB_BASE_URL": server if isinstance(server, str) else server.url,
            "WANDB_API_KEY": key,
        },
        capture_output=True,
        text=True,
        timeout=HANGS_S,
    )
    return run.returncode, run.stdout, run.stderr


def arrived(got):
    """What the server has, by step and metric; a metric that is there twice for a step fails."""
    found = {}
    for row in got["history"]:
        for name, value in row.items():
            if "/" in name and not name.startswith("progress/"):
                assert (row["progress/step"], name) not in found, "uploaded twice"
                found[row["progress/step"], name] = value
    return found


def test_segments_are_uploaded_once_in_order_and_empty_ones_set_aside(tmp_path, serve):
    offline_run(tmp_path)
    first = segments(tmp_path)[0]
    empty = first.parents[1] / "offline-run-20200101_000000-run0"  # what a kill in the first seconds leaves
    empty.mkdir()
    (empty / "run-run0.wandb").write_bytes(first.read_bytes()[:7])
    server = serve("ok")
    code, out, err = track_sync(server, tmp_path)
    assert (code, err) == (0, "")
    quarantined = tmp_path / "wandb" / "quarantine" / empty.name
    assert out.splitlines()[0] == f"{empty.name}: empty, moved to {quarantined}"
    assert [line.endswith(": uploaded") for line in out.splitlines()[1:]] == [True] * 3
    assert quarantined.is_dir()
    again = track_sync(server, tmp_path)
    assert again[0] == 0
    assert again[1].count(": uploaded before\n") == 3
    got = server.got()
    assert arrived(got) == metrics_in_jsonl(tmp_path)
    assert got["exit_codes"] == [143, 1, 0]


def test_a_damaged_segment_is_an_error_and_a_rebuild_mends_it(tmp_path, serve):
    offline_run(tmp_path)
    damaged = segments(tmp_path)[1]
    data = bytearray(damaged.read_bytes())
    data[20] ^= 255
    damaged.write_bytes(data)
    server = serve("ok")
    code, out, err = track_sync(server, tmp_path)
    assert code == 1
    assert err == f"error: {damaged} is damaged at byte 7: not uploaded; --rebuild uploads metrics.jsonl instead\n"
    assert out.count(": uploaded\n") == 2
    anew = serve("ok")
    code, out, err = track_sync(anew, "--rebuild", tmp_path)
    assert (code, err) == (0, "")
    assert out.endswith(f"{tmp_path}: rebuilt from metrics.jsonl; what W&B had of it before is another run\n")
    assert len(list((tmp_path / "wandb" / "replaced").iterdir())) == 3
    assert len(segments(tmp_path)) == 1
    got = anew.got()
    assert arrived(got) == metrics_in_jsonl(tmp_path)
    assert [run["id"].startswith("run0-") for run in got["runs"]] == [True] * len(got["runs"])


def test_a_server_that_refuses_or_is_away_is_an_error(tmp_path, serve):
    offline_run(tmp_path)
    code, out, err = track_sync(serve("refuse"), tmp_path)
    assert (code, out) == (1, "")
    assert "401" in err, err
    code, _, err = track_sync("http://127.0.0.1:9", tmp_path)
    assert code == 1
    assert err.startswith("error: W&B cannot be reached: http://127.0.0.1:9 does not answer: ")
    code, _, err = track_sync("http://127.0.0.1:9", tmp_path, key="")
    told = "error: W&B cannot be reached: no API key. Run `wandb login`, or set WANDB_API_KEY and WANDB_BASE_URL\n"
    assert (code, err) == (1, told)
    code, _, err = track_sync(serve("ok"), tmp_path / "no_run")
    assert (code, err) == (1, f"error: {tmp_path}/no_run is not a run folder: it has no run.json\n")


def test_what_a_hanging_server_did_not_take_is_added_later_and_once(tmp_path, serve):
    server = serve("ok")
    attempt(tmp_path, server, 1, 1, 6, "preempted")
    urllib.request.urlopen(f"{server.url}/behave/hang").close()
    attempt(tmp_path, server, 2, 5, 12, "preempted", closes_s=2)
    state = {"run_id": "run0", "status": "preempted", "attempts": [{}], "recipe": {"name": "r", "tracking": TRACKING}}
    (tmp_path / "run.json").write_text(json.dumps(state))
    urllib.request.urlopen(f"{server.url}/behave/ok").close()
    code, out, err = track_sync(server, tmp_path)
    assert (code, err) == (0, "")
    assert out.endswith("what an online run had left was added\n")
    assert arrived(server.got()) == metrics_in_jsonl(tmp_path)
    assert len(read_rows(tmp_path)) == 14
