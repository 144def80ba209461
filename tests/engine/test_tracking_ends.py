"""Real wandb beside real runs: two ranks are one run, and a run that breaks says why."""

import json

import pytest

from distcls.tracking.jsonl import read_rows
from tests.engine.launching import PLAIN, TORCHRUN, launch
from tests.engine.test_tracking import records


@pytest.mark.slow
def test_two_ranks_are_one_run(tiny_recipe, tmp_path):
    code, output = launch(TORCHRUN, tiny_recipe, "tracking.mode=offline", "train.max_steps=6", "train.epochs=null")
    assert code == 0, output
    run = tmp_path / "run"
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    rows = [record for record in records(file) if record.WhichOneof("record_type") == "history"]
    found = [[item.key or "/".join(item.nested_key) for item in record.history.item] for record in rows]
    assert sum("train/loss" in row for row in found) == len([row for row in read_rows(run) if "train/loss" in row])
    shares = {name for row in found for name in row if "perf/share_" in name}
    assert "perf/share_communication" in shares
    assert output.count("W&B: offline") == 1
    assert output.count("bottleneck ") == 1


def test_a_run_that_breaks_is_failed_on_wandb_with_its_reason(tiny_recipe, tmp_path):
    code, output = launch(PLAIN, tiny_recipe, "tracking.mode=offline", "optimizer.lr=1e38", "schedule.warmup_steps=1")
    assert code == 1, output
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    found = list(records(file))
    assert [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"] == [1]
    summaries = [record.summary.update for record in found if record.WhichOneof("record_type") == "summary"]
    messages = [json.loads(item.value_json) for update in summaries for item in update if item.key == "message"]
    assert len(messages) == 1
    assert messages[0].startswith("NonFiniteLoss: the loss or the weights are not finite at step ")
