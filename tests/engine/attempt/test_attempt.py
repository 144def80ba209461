"""What an attempt leaves behind, whatever ends it: in one order, and without hiding the error."""

import json
from pathlib import Path

import pytest

from distcls.engine.attempt.attempt import Attempt
from distcls.engine.records.run_folder import RunFolder
from distcls.engine.stopping.preemption import StopRequest
from distcls.tracking.console import Console


class Watching:
    """A tracker that notes what run.json says while it is closed."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.seen = folder, []

    def finish(self, status, message=None):
        self.seen.append((status, message, self.folder.read()["status"]))


class Unsaved:
    def settle(self, seconds):
        raise OSError("the disk is gone")


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    folder = RunFolder(tmp_path / "run")
    start = folder.begin({}, recipe_yaml="", fingerprints={}, world_size=1, threads=1)
    begun = Attempt(folder, start, Console(), StopRequest(), timeout_s=60, warn_after_s=60, rank=0, ranks=1)
    begun.heart.folder.mkdir()
    begun.trackers.backends = [Watching(folder)]
    return begun


def test_an_error_leaves_as_it_is_though_its_save_fails_and_is_in_run_json_after_the_trackers_are_closed(
    attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    (tracker,) = attempt.trackers.backends
    attempt.snapshots = Unsaved()
    with pytest.raises(ValueError, match=r"^no luck$"), attempt:
        raise ValueError("no luck")
    assert tracker.seen == [("failed", "ValueError: no luck", "running")]
    assert "a checkpoint was not completed: OSError: the disk is gone" in capsys.readouterr().out
    last = json.loads((attempt.folder.path / "run.json").read_text())["attempts"][-1]
    assert (last["status"], last["message"], last["exit_code"]) == ("failed", "ValueError: no luck", 1)


def test_a_preempted_attempt_removes_the_stop_file_and_gives_the_folder_free(attempt: Attempt) -> None:
    attempt.stop.stop_file.touch()
    with attempt:
        attempt.status, attempt.message = "preempted", attempt.stop.requested
    assert not attempt.folder.stop_file.exists()
    assert attempt.folder.read()["status"] == "preempted"
    again = RunFolder(attempt.folder.path).begin({}, recipe_yaml="", fingerprints={}, world_size=1, threads=1, wait_s=0)
    assert again.attempt == 2
