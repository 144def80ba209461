"""`distcls` itself: how it is started, and what it says when nothing works."""

import subprocess
import sys
from pathlib import Path

import pytest

from distcls import __version__
from distcls.cli.main import main


def said(monkeypatch, capsys, *arguments):
    """Status, stdout and stderr of `distcls arguments`."""
    monkeypatch.setattr(sys, "argv", ["distcls", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return (ended.value.code, *capsys.readouterr())


def test_it_starts_as_a_module_and_says_its_version():
    command = [sys.executable, "-m", "distcls", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"distcls {__version__}\n"


def test_help_says_how_to_train(monkeypatch, capsys):
    status, out, _ = said(monkeypatch, capsys, "--help")
    assert status == 0
    assert "accelerate launch launch/train.py RECIPE" in " ".join(out.split())


def test_a_file_that_cannot_be_written_is_named_without_a_traceback(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "recipe.schema.json"
    assert said(monkeypatch, capsys, "recipe", "schema", "-o", target) == (
        1,
        "",
        f"error: {tmp_path / 'file'}: File exists\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_without_a_traceback(monkeypatch, capsys):
    status, _, err = said(monkeypatch, capsys, "recipe", "schema", "-o", "/dev/full")
    assert (status, err) == (1, "error: No space left on device\n")


def test_report_makes_no_folder_of_a_misspelt_run(monkeypatch, capsys, tmp_path):
    assert said(monkeypatch, capsys, "report", tmp_path / "nothing") == (
        1, "", f"error: {tmp_path}/nothing is not a run folder: it has neither run.json nor metrics.jsonl\n"
    )  # fmt: skip
    assert not (tmp_path / "nothing").exists()
