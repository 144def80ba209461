"""Real wandb beside a real run that is killed and preempted: one run, and every value that metrics.jsonl has."""

import json
import signal
import struct

import pytest
from wandb.proto import wandb_internal_pb2

from distcls.tracking.jsonl import read_rows
from tests.engine.launching import PLAIN, finish, held, launch, start
from tests.engine.test_resume import wait_for_step

BLOCK = 32768  # bytes of LevelDB's log format, which .wandb files use


def records(path):
    """The protobuf records of a .wandb file, read without wandb's own reader or ours; a torn tail ends them."""
    data, position, buffer = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if kind == 0 and length == 0:
            position += left
            continue
        buffer = (b"" if kind in (1, 2) else buffer) + data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4) and position <= len(data):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(buffer)
            yield record


@pytest.mark.slow
def test_wandb_has_every_value_of_metrics_jsonl_once(tiny_recipe, tmp_path):
    """Over two kills and a preemption."""
    run = tmp_path / "run"
    arguments = [tiny_recipe, "tracking.mode=offline", "train.log_every_steps=2"]
    for step in (6, 13):
        process = start(held(PLAIN, step + 8), *arguments)
        wait_for_step(process, run, step)
        process.kill()
        finish(process)
    process = start(held(PLAIN, 26), *arguments)
    wait_for_step(process, run, 18)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    code, output = launch(PLAIN, *arguments)
    assert code == 0, output

    logged, ids, codes = {}, set(), []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
            if kind == "exit":
                codes.append(record.exit.exit_code)
            if kind == "history":
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                for name in row:
                    # the tables and pictures of the last evaluation have no step: they are not rows of metrics.jsonl
                    if "/" in name and not name.startswith("progress/") and "progress/step" in row:
                        key = row["progress/step"], name
                        assert key not in logged, f"twice: {key}"
                        logged[key] = row[name]
    wanted = {(row["step"], name): row[name] for row in read_rows(run) for name in row if "/" in name}
    assert _trained(logged) == _trained(wanted)
    # What measures time differs between attempts at a step: W&B keeps the first one's.
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for step, name in logged.keys() - _trained(logged).keys():
        assert logged[step, name] in [row[name] for row in written if row["step"] == step and name in row]
    assert sorted({step for step, name in wanted if name == "train/loss"}) == list(range(2, 31, 2))
    assert ids == {json.loads((run / "run.json").read_text())["run_id"]}
    assert codes == [143, 0]


def _trained(values):
    """Without what measures time."""
    return {key: value for key, value in values.items() if not key[1].startswith("perf/")}
