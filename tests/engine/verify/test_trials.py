"""Whether a run was interrupted, judged by its own records: an interruption that came too late does not count."""

import json
import random
from pathlib import Path

import pytest

from distcls.engine.verify import processes
from distcls.engine.verify.trials import Trials, trained_by
from distcls.tracking.jsonl import MetricsLog

STEPS = 8
# A run that writes its rows and its record and ends at once, before it can be interrupted.
FAST = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[-1].removeprefix("output_dir="))
rows = [{"step": step, "epoch": 0.1, "samples": step, "attempt": 1, "train/loss": 1.0} for step in range(1, 9)]
(run / "metrics.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
(run / "run.json").write_text(
    json.dumps({"status": "finished", "attempts": [{"status": "finished", "world_size": 1}]})
)
"""


@pytest.mark.parametrize(
    ("disturb", "story"),
    [
        (lambda trials: trials.killed(1, 2), "1 process, kill -9 0 times and resumed"),
        (lambda trials: trials.preempted(1), "1 process, preempted 0 times and resumed"),
        (lambda trials: trials.moved([1, 2, 1]), "moved over 1 processes"),
    ],
)
def test_a_run_that_is_over_first_was_not_interrupted(tmp_path, monkeypatch, disturb, story):
    monkeypatch.setattr(processes, "START", FAST)
    monkeypatch.setattr(processes.Processes, "wait_for_step", lambda self, step, saved=False: False)
    trial = disturb(Trials(Path("tiny.yaml"), [], tmp_path, STEPS, 1, True, random.Random(0)))
    assert trial.story == story
    assert trial.missed == "its 8 steps were over before it could be interrupted and resumed"


def made_run(folder, attempts):
    """`attempts`: (number of processes, step of the checkpoint that it resumed from or None, last step) of each."""
    for number, (_, start, last) in enumerate(attempts, 1):
        log = MetricsLog(folder, number)
        if start is not None:
            log.event("resumed", step=start, changed={}, allowed=[])
        for step in range((start or 0) + 1, last + 1):
            log.log({"step": step, "epoch": 0.1 * step, "samples": step, "train/loss": 1.0})
        log.finish("finished")
    record = {"attempts": [{"world_size": world_size} for world_size, _, _ in attempts]}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([(1, None, 4), (2, 2, 6), (1, 6, 8)], [1, 2, 1]),
        ([(1, None, 3), (1, None, 8)], [1]),  # killed before its first checkpoint: started over
        ([(1, None, 8), (2, 8, 8)], [1]),  # preempted at its last step: nothing was left to train
    ],
)
def test_only_attempts_whose_steps_stayed_count(tmp_path, attempts, expected):
    assert trained_by(made_run(tmp_path, attempts)) == expected
