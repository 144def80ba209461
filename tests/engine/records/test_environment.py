"""What a run folder records about code, machine and command; and what it must not reveal."""

import json
import subprocess

import pytest

from distcls.engine.records.code_record import code_record
from distcls.engine.records.environment import environment, record


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "plugin.py").write_text("api_key = 'abcdefgh0123'\nwidth = 1\n")

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return folder


def test_commit_changes_and_untracked_files_of_a_checkout(checkout, tmp_path):
    (clean,), diff = code_record([checkout, checkout, tmp_path])  # twice, and a folder without git
    assert (clean["repository"], clean["changed"], diff) == (str(checkout), [], "")
    assert len(clean["commit"]) == 40
    (checkout / "plugin.py").write_text("api_key = 'abcdefgh0123'\nwidth = 2\n")
    (checkout / "new.py").touch()
    (dirty,), diff = code_record([checkout])
    assert (dirty["changed"], dirty["untracked"]) == (["plugin.py"], ["new.py"])
    assert "+width = 2" in diff
    assert "api_key = '[redacted]'" in diff
    assert "abcdefgh" not in diff


def test_the_diff_can_be_applied_whatever_the_user_s_git_is_set_to(checkout, tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True)

    git("config", "color.ui", "always")
    git("config", "diff.external", "/bin/echo")
    (checkout / "plugin.py").write_text("width = 1\n" + "\n" * 6)
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-am", "blank lines at the end")
    (checkout / "plugin.py").write_text("width = 2\n" + "\n" * 6)
    (checkout / "näme with blanks.py").touch()
    (dirty,), diff = code_record([checkout])
    assert (dirty["changed"], dirty["untracked"]) == (["plugin.py"], ["näme with blanks.py"])
    (tmp_path / "code.diff").write_text(diff)
    git("checkout", "plugin.py")
    git("apply", str(tmp_path / "code.diff"))
    assert (checkout / "plugin.py").read_text() == "width = 2\n" + "\n" * 6


def test_where_git_does_not_say_nothing_is_claimed(checkout, monkeypatch):
    monkeypatch.setattr(
        "distcls.engine.records.code_record._git", lambda at, *asked: None if "status" in asked else "x"
    )
    (unknown,), _ = code_record([checkout])
    assert (unknown["changed"], unknown["untracked"]) == (None, None)


def test_lines_that_end_as_on_windows_do_not_make_a_new_diff(checkout, tmp_path):
    (checkout / "plugin.py").write_bytes(b"width = 2\r\n")
    for attempt in (1, 2):
        record(tmp_path, attempt, {}, [checkout])
    assert sorted(file.name for file in tmp_path.glob("*.diff")) == ["code.diff"]


def test_attempts_share_a_diff_until_the_code_changes(checkout, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for attempt, width in enumerate((2, 2, 3), 1):
        (checkout / "plugin.py").write_text(f"width = {width}\n")
        record(run, attempt, {"hosts": ["node1"]}, [checkout])
    attempts = json.loads((run / "environment.json").read_text())
    assert [one["diff"] for one in attempts.values()] == ["code.diff", "code.diff", "code_3.diff"]
    assert "+width = 2" in (run / "code.diff").read_text()
    assert "+width = 3" in (run / "code_3.diff").read_text()


def test_command_and_variables_without_secrets(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "r.yaml", "tracking.api_key=0123"])
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    facts = environment([{"host": "a", "device": "H100"}, {"host": "b", "device": "H100"}])
    assert facts["command"] == ["train.py", "r.yaml", "tracking.api_key=[redacted]"]
    assert (facts["hosts"], facts["slurm"]) == (["a", "b"], {"job_id": "77"})
    assert facts["variables"]["NCCL_DEBUG"] == "INFO"
    assert "hf_0123456789" not in json.dumps(facts)
