import json
import re
from pathlib import Path

import pytest

from distcls.errors import UserError
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.report import render
from distcls.tracking.report_tables import attempts_table
from distcls.tracking.run_record import flatten, read_run
from tests.tracking.example_runs import make_run


def test_time_is_what_the_attempts_worked_not_what_they_waited(tmp_path):
    attempts = ((0, 250, "preempted"), (234, 500, "killed"), (468, 10**9, "finished"))
    run = read_run(make_run(tmp_path / "r", epochs=3, steps_per_epoch=234, attempts=attempts))
    # Every step takes 0.55 s, every evaluation 21 s; steps 235-250 and 469-500 were taken twice.
    worked = 0.55 * (702 + 16 + 32) + 21 * 3
    assert run.rows[-1]["elapsed"] == pytest.approx(worked, abs=5)
    elapsed = [row["elapsed"] for row in run.rows]
    assert elapsed == sorted(elapsed)


def test_restarts_are_where_the_checkpoints_were(tmp_path):
    attempts = ((0, 250, "preempted"), (234, 500, "killed"), (468, 10**9, "finished"))
    run = read_run(make_run(tmp_path / "r", epochs=3, steps_per_epoch=234, attempts=attempts))
    found = [(r.attempt, r.after, r.position["step"], r.position["samples"]) for r in run.restarts]
    assert found == [(2, "preempted", 234, 234 * 1024), (3, "killed", 468, 468 * 1024)]
    assert run.restarts[0].position["epoch"] == pytest.approx(1.0, abs=1e-5)
    assert run.restarts[0].position["elapsed"] == pytest.approx(0.55 * 250 + 21, abs=5)
    assert (run.name, run.status, run.run_id, run.total_epochs) == ("r", "finished", "a5e86192", 3.0)


def test_an_attempt_that_failed_before_it_went_on_is_no_restart(tmp_path):
    folder = make_run(tmp_path / "r", epochs=1, steps_per_epoch=100, attempts=((0, 60, "killed"),))
    MetricsLog(folder, 2).finish("failed", "UserError: out of memory")
    state = json.loads((folder / "run.json").read_text())
    state["attempts"].append({**state["attempts"][0], "status": "failed"})
    (folder / "run.json").write_text(json.dumps(state))
    run = read_run(folder)
    assert run.restarts == []
    assert re.findall(r"8 x 12</td><td class=num>(.*?)</td>", attempts_table(run)) == ["0", "-"]


def test_secrets_of_a_recipe_stay_in_its_folder(tmp_path):
    message = "no answer from http://me:pw@host"
    folder = make_run(tmp_path / "r", epochs=1, steps_per_epoch=60, attempts=((0, 50, "failed"),), message=message)
    with open(folder / "recipe.yaml", "a") as file:
        file.write("tracking: {backends: [{type: Own, url: http://me:pw@host, api_key: abcdefgh0123}]}\n")
    page = render([folder])
    assert "abcdefgh0123" not in page
    assert "me:pw" not in page
    assert "http://[redacted]@host" in page


def test_a_run_that_writes_can_be_read(tmp_path):
    folder = make_run(tmp_path / "r", epochs=3, steps_per_epoch=234, attempts=((0, 300, "running"),))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 350, "train/lo')
    run = read_run(folder)
    assert (run.status, run.rows[-1]["step"]) == ("running", 300)


def test_a_run_without_a_row_yet(tmp_path):
    run = read_run(make_run(tmp_path / "r", attempts=((0, 10, "running"),)))
    assert (run.rows, run.restarts, run.events) == ([], [], [])


def test_the_recipe_key_by_key_as_written():
    recipe = {"optimizer": {"lr": "5e-05"}, "topk": ["1", "5"], "augment": [{"type": "Flip"}, {"p": "0.5"}], "x": ""}
    assert dict(flatten(recipe)) == {
        "optimizer.lr": "5e-05",
        "topk": "[1, 5]",
        "augment.0.type": "Flip",
        "augment.1.p": "0.5",
        "x": "",
    }


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == f"{tmp_path} is not a run folder: it has neither run.json nor metrics.jsonl"


def test_metrics_alone_are_enough(tmp_path):
    folder = make_run(tmp_path / "r", epochs=1, steps_per_epoch=100)
    (folder / "run.json").unlink()
    (folder / "recipe.yaml").unlink()
    run = read_run(folder)
    assert (run.name, run.status, len(run.rows)) == ("r", "unknown", 4)
    assert json.dumps(run.rows)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b"{"])
@pytest.mark.parametrize("name", ["run.json", "recipe.yaml"])
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    """As a disk that failed leaves it: no traceback."""
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    if name == "recipe.yaml" and content in (b"", b"[1]"):
        assert read_run(tmp_path).recipe == {}
        return
    with pytest.raises(UserError, match=rf"{name} is damaged \(.+\): mend it, copy it again, or move it away$"):
        read_run(tmp_path)
