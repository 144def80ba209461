import json
import math
import os
import signal
import subprocess
import sys
import time
from unittest.mock import MagicMock

import numpy as np
import pytest

from distcls.tracking.jsonl import MetricsLog, read_events, read_rows
from distcls.tracking.trackers import Trackers


def row(step, **metrics):
    return {"step": step, "epoch": step / 10, "samples": step * 8, **metrics}


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def strict_lines(path):
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_a_row_is_one_strict_line_with_its_counters(tmp_path):
    log = MetricsLog(tmp_path, attempt=3, clock=lambda: 1700000000.12345)
    log.log(row(10, **{"train/loss": np.float32(0.5), "train/top1": 0.75}))
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 10, "epoch": 1.0, "samples": 80, "attempt": 3, "time": 1700000000.123, '
        '"train/loss": 0.5, "train/top1": 0.75}\n'
    )


def test_non_finite_numbers_are_strict_json_and_come_back(tmp_path):
    log = MetricsLog(tmp_path)
    log.log(row(1, **{"train/loss": math.nan, "optim/grad_norm": math.inf, "train/low": -np.float32(math.inf)}))
    (line,) = strict_lines(tmp_path / "metrics.jsonl")
    assert (line["train/loss"], line["optim/grad_norm"], line["train/low"]) == ("NaN", "Infinity", "-Infinity")
    (back,) = read_rows(tmp_path)
    assert math.isnan(back["train/loss"])
    assert (back["optim/grad_norm"], back["train/low"]) == (math.inf, -math.inf)


def test_the_last_attempt_wins_per_step_and_kind(tmp_path):
    first = MetricsLog(tmp_path, attempt=1)
    for step in (10, 20, 30):
        first.log(row(step, **{"train/loss": 1.0}))
    first.log(row(20, **{"val/top1": 0.1, "best/val_top1": 0.1}))
    second = MetricsLog(tmp_path, attempt=2)
    second.log(row(20, **{"train/loss": 2.0}))
    got = [(r["step"], r["attempt"], r.get("train/loss"), r.get("val/top1")) for r in read_rows(tmp_path)]
    assert got == [(10, 1, 1.0, None), (20, 2, 2.0, None), (20, 1, None, 0.1), (30, 1, 1.0, None)]


def test_only_a_torn_last_line_is_trimmed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(tmp_path)
    log.log(row(1, **{"train/loss": 1.0}))
    log.log(row(2, **{"train/loss": 2.0}))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 3, "train/lo')
    assert [r["step"] for r in read_rows(tmp_path)] == [1, 2]  # a reader beside a writer sees this
    MetricsLog(tmp_path, attempt=2)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 200000])
def test_a_torn_line_of_any_size_is_trimmed(tmp_path, size):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "attempt": 1}\n' + b"x" * size)
    MetricsLog(tmp_path, attempt=2)
    assert path.read_bytes() == b'{"step": 1, "attempt": 1}\n'
    path.write_bytes(b"x" * size)
    MetricsLog(tmp_path, attempt=2)
    assert path.read_bytes() == b""


def test_a_damaged_line_in_the_middle_is_named_and_left_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "attempt": 1}\n\0\0\0\n{"step": 3, "attempt": 1}\n')
    with pytest.warns(UserWarning, match=r"metrics.jsonl:2: not a JSON object, left out: b'\\x00\\x00\\x00\\n'$"):
        assert [r["step"] for r in read_rows(tmp_path)] == [1, 3]
    assert path.read_bytes().count(b"\n") == 3


WRITER = """
import sys
from pathlib import Path
from distcls.tracking.jsonl import MetricsLog
log = MetricsLog(Path(sys.argv[1]))
print("ready", flush=True)
step = 0
while True:
    step += 1
    log.log({"step": step, "epoch": 0.0, "samples": step, **{f"train/m{i}": i / 7 for i in range(50)}})
"""


def test_sigkill_of_a_writer_costs_at_most_the_line_it_is_writing(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        while not (path := tmp_path / "metrics.jsonl").exists() or path.stat().st_size < 50000:
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
    MetricsLog(tmp_path, attempt=2)
    steps = [line["step"] for line in strict_lines(path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 10


def test_rows_wait_for_room_on_a_full_disk(tmp_path, monkeypatch):
    warnings = []
    log = MetricsLog(tmp_path, warn=warnings.append)
    real = os.write

    def half(fd, data):
        monkeypatch.setattr(os, "write", full)
        return real(fd, data[: len(data) // 2])

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    log.log(row(1, **{"train/loss": 1.0}))
    log.log(row(2, **{"train/loss": 2.0}))
    assert warnings == [
        f"{tmp_path}/metrics.jsonl: No space left on device: rows wait in memory until it can be written"
    ]
    assert read_rows(tmp_path) == []
    monkeypatch.setattr(os, "write", real)
    log.log(row(3, **{"train/loss": 3.0}))
    assert [r["step"] for r in read_rows(tmp_path)] == [1, 2, 3]


def test_rows_beyond_the_checkpoint_that_a_later_attempt_went_on_from_are_taken_back(tmp_path):
    """Such as the best evaluation of a learning rate that one has gone back behind."""
    first = MetricsLog(tmp_path, attempt=1)
    for step in (10, 20, 30, 40):
        first.log(row(step, **{"train/loss": 1.0, "val/top1": 0.9}))
    second = MetricsLog(tmp_path, attempt=2)
    assert [r["step"] for r in read_rows(tmp_path)] == [10, 20, 30, 40]
    second.event("resumed", step=20, allowed=[])
    assert [r["step"] for r in read_rows(tmp_path)] == [10, 20]
    assert [r["step"] for r in read_rows(tmp_path, repeated=True)] == [10, 20, 30, 40]
    second.log(row(35, **{"train/loss": 2.0}))  # with another log_every_steps
    third = MetricsLog(tmp_path, attempt=3)
    third.event("resumed", step=35, allowed=["optimizer.lr"])
    found = [(10, 1), (20, 1), (35, 2)]
    assert [(r["step"], r["attempt"]) for r in read_rows(tmp_path)] == found
    assert [(r["step"], r["attempt"]) for r in read_rows(tmp_path, repeated=True)] == [
        (10, 1),
        (20, 1),
        (30, 1),
        (35, 2),
    ]


def test_a_checkpoint_on_a_full_disk_costs_no_row(tmp_path, monkeypatch):
    warnings, real = [], os.write
    trackers = Trackers([MetricsLog(tmp_path, warn=warnings.append)], warn=warnings.append)
    monkeypatch.setattr(os, "write", MagicMock(side_effect=OSError(28, "No space left on device")))
    trackers.log(row(1, **{"train/loss": 1.0}))
    trackers.sync()
    monkeypatch.setattr(os, "write", real)
    trackers.log(row(2, **{"train/loss": 2.0}))
    trackers.finish("finished")
    assert [r["step"] for r in read_rows(tmp_path)] == [1, 2]
    assert warnings == [
        f"{tmp_path}/metrics.jsonl: No space left on device: rows wait in memory until it can be written"
    ]


def test_rows_that_never_found_room_are_counted(tmp_path, monkeypatch):
    warnings = []
    log = MetricsLog(tmp_path, warn=warnings.append)
    monkeypatch.setattr(os, "write", MagicMock(side_effect=OSError(28, "No space left on device")))
    for step in (1, 2):
        log.log(row(step, **{"train/loss": 1.0}))
    log.finish("failed")
    assert f"{tmp_path}/metrics.jsonl: its last 2 lines are lost, they could not be written until the end" in warnings


def test_events_keep_their_order_and_the_end_is_one(tmp_path):
    log = MetricsLog(tmp_path, attempt=2, clock=lambda: 5.0)
    log.event("resumed", step=120, checkpoint=tmp_path / "step_00000120")
    log.sync()
    log.finish("preempted", "SIGTERM")
    assert read_events(tmp_path) == [
        {"time": 5.0, "attempt": 2, "kind": "resumed", "step": 120, "checkpoint": str(tmp_path / "step_00000120")},
        {"time": 5.0, "attempt": 2, "kind": "preempted", "message": "SIGTERM"},
    ]


def test_an_empty_folder_has_no_rows(tmp_path):
    assert (read_rows(tmp_path), read_events(tmp_path)) == ([], [])
