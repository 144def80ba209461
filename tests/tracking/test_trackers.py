import threading
from unittest.mock import MagicMock

from distcls.tracking.trackers import Trackers


class Backend:
    def __init__(self):
        self.calls = []

    def log(self, row):
        self.calls.append(("log", row["step"]))

    def event(self, kind, **fields):
        self.calls.append((kind, fields))

    def finish(self, status, message=None):
        self.calls.append((status, message))


class Raising(Backend):
    def log(self, row):
        raise OSError("no route to host")


class Stuck(Backend):
    def finish(self, status, message=None):
        threading.Event().wait()


def test_a_backend_that_raises_is_named_once_and_dropped():
    warnings, good = [], Backend()
    trackers = Trackers([Raising(), good], warn=warnings.append)
    for step in (1, 2):
        trackers.log({"step": step})
    trackers.event("resumed", step=1)
    trackers.finish("finished")
    assert warnings == ["Raising failed and is off for the rest of this run: OSError: no route to host"]
    assert good.calls == [("log", 1), ("log", 2), ("resumed", {"step": 1}), ("finished", None)]


def test_a_backend_that_hangs_or_raises_in_finish_is_left_behind():
    class Broken(Backend):
        def finish(self, status, message=None):
            raise RuntimeError

    warnings, good = [], Backend()
    seconds = MagicMock()
    seconds.__getitem__.side_effect = [0.1, 900.0, 900.0]  # only the first is never in time, whatever the machine
    trackers = Trackers([Stuck(), Broken(), good], warn=warnings.append, finish_seconds=seconds)
    trackers.finish("preempted", "SIGTERM")
    trackers.finish("preempted", "SIGTERM")
    assert warnings == [
        "Stuck did not close within 0.1 s and was left behind",
        "Broken failed while closing: RuntimeError",
    ]
    assert good.calls == [("preempted", "SIGTERM")]
