"""What an attempt leaves behind, however it ends: closed in a fixed order, without hiding the original error."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from distcls.engine.attempt.attempt import Attempt
from distcls.engine.records.run_folder import RunFolder
from distcls.engine.stopping.preemption import StopRequest
from distcls.tracking.console import Console


class Watching:
    """A tracker that records the status in run.json at the moment it is closed."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.seen = folder, []

    def finish(self, status, message=None):
        self.seen.append((status, message, self.folder.read()["status"]))


class Unsaved:
    def settle(self, seconds):
        raise OSError("the disk is gone")


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    folder = RunFolder(tmp_path / "run")
    start = folder.begin({}, recipe_yaml="", fingerprints={}, world_size=1, threads=1)
    stop = StopRequest()
    begun = Attempt(folder, start, Console(), stop, timeout_s=60, warn_after_s=60, rank=0, ranks=1)
    begun.heart.folder.mkdir()
    begun.trackers.backends = [Watching(folder)]
    stop.install()
    yield begun
    stop.uninstall()


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


def interrupted_after_the_last_step(attempt: Attempt) -> None:
    attempt.status = "finished"
    raise KeyboardInterrupt


def test_an_error_after_the_last_step_is_no_finished_run(attempt: Attempt) -> None:
    """last.safetensors is written after the last step; an attempt that found the run finished would not write it."""
    with pytest.raises(KeyboardInterrupt), attempt:
        interrupted_after_the_last_step(attempt)
    assert attempt.folder.read()["status"] == "failed"
    assert attempt.folder.read()["attempts"][-1]["message"] == "KeyboardInterrupt: "


class Slow:
    """A tracker that is slow to close: the stop file is created meanwhile."""

    def __init__(self, stop_file: Path) -> None:
        self.stop_file = stop_file

    def finish(self, status, message=None):
        self.stop_file.touch()


def test_a_stop_file_beside_a_signal_is_what_the_batch_script_hears(attempt: Attempt) -> None:
    """After a signal alone, the batch script would start the run again."""
    os.kill(os.getpid(), signal.SIGUSR2)
    attempt.folder.stop_file.touch()
    with attempt:
        attempt.status, attempt.message = "preempted", attempt.stop.requested
    assert attempt.folder.read()["attempts"][-1]["message"] == f"stop file {attempt.folder.stop_file}"
    assert not attempt.folder.stop_file.exists()


def test_a_stop_file_that_comes_too_late_is_left_to_the_next_attempt(attempt: Attempt) -> None:
    attempt.trackers.backends = [Slow(attempt.folder.stop_file)]
    with attempt:
        attempt.status, attempt.message = "preempted", "SIGUSR2"
    assert attempt.folder.read()["attempts"][-1]["message"] == "SIGUSR2"
    assert attempt.folder.stop_file.exists()


def test_a_preempted_attempt_removes_the_stop_file_and_gives_the_folder_free(attempt: Attempt) -> None:
    attempt.stop.stop_file.touch()
    with attempt:
        attempt.status, attempt.message = "preempted", attempt.stop.requested
    assert not attempt.folder.stop_file.exists()
    assert attempt.folder.read()["status"] == "preempted"
    again = RunFolder(attempt.folder.path).begin({}, recipe_yaml="", fingerprints={}, world_size=1, threads=1, wait_s=0)
    assert again.attempt == 2
