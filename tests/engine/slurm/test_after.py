"""The command that a batch script runs after its step, on run folders as attempts leave them."""

import json
import subprocess
import sys

import pytest

from distcls.engine.records.run_folder import RunFolder
from distcls.engine.slurm.after import main

CANCELLED = "JobId=7 JobState=COMPLETING Reason=None Restarts=0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run that SLURM job 7 has started, with a checkpoint at step 4."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "tiny.yaml").write_text("output_dir: somewhere\n")
    run = RunFolder(tmp_path / "run")
    run.begin({"model": {}}, recipe_yaml="", fingerprints={}, world_size=2, threads=1)
    run.close()
    (run.checkpoints / "step_00000004").mkdir(parents=True)
    (run.checkpoints / "step_00000008.corrupt").mkdir()
    return run


def after(*options):
    return main([*options, "tiny.yaml", "output_dir=run"], {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": ""})


def test_a_killed_attempt_goes_on_and_is_noted(folder, capsys):
    assert after() == 75
    assert capsys.readouterr().err == (
        "slurm job 7, restart 0: requeue: was killed at step 4, 4 steps further than it began\n"
    )
    assert folder.read()["status"] == "killed"
    assert folder.read()["attempts"][0]["message"] == "SLURM job 7 ended without a word"


def test_a_cancelled_run_says_so(folder, capsys):
    folder.end("preempted", "SIGTERM")
    assert after("--job", CANCELLED) == 0
    assert "cancelled: it is not started again. To go on: the same sbatch" in capsys.readouterr().err
    assert folder.read()["status"] == "cancelled"


def test_a_run_that_another_process_has_is_left_alone(folder):
    other = RunFolder(folder.path)
    other._lock.take(0)
    assert after() == 75
    assert folder.read()["status"] == "running"
    other.close()


def test_the_job_and_where_it_began_are_in_run_json(folder):
    assert {key: folder.read()["attempts"][0][key] for key in ("job", "restart", "from_step")} == {
        "job": "7",
        "restart": 0,
        "from_step": None,
    }


def test_a_damaged_run_json_is_not_started_again(folder, capsys):
    (folder.path / "run.json").write_text("{")
    assert after() == 1
    assert capsys.readouterr().err.startswith(
        "slurm job 7, restart 0: it is not started again: run/run.json is damaged ("
    )


def test_a_note_that_cannot_be_written_does_not_keep_the_job_from_starting_again(folder):
    (folder.path / ".run.json.tmp").mkdir()  # the file that run.json is written to first
    assert after() == 75
    assert folder.read()["status"] == "running"


def test_a_run_folder_that_cannot_be_read(folder, capsys):
    (folder.path / "run.json").unlink()
    (folder.path / "run.json").mkdir()
    assert after() == 1
    assert capsys.readouterr().err == (
        "slurm job 7, restart 0: it is not started again: run/run.json: Is a directory\n"
    )


def test_a_recipe_that_cannot_be_read(folder, capsys):
    (folder.path.parent / "tiny.yaml").unlink()
    assert after() == 1
    assert "it is not started again: 1 mistake in tiny.yaml" in capsys.readouterr().err


def test_it_needs_no_torch():
    code = "import sys, distcls.engine.slurm.after; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_exit_code_is_kept(folder):
    folder.end("failed", "CheckpointError: none", 76)
    assert json.loads((folder.path / "run.json").read_text())["attempts"][0]["exit_code"] == 76
    assert after() == 76
