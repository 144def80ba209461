"""Stop requests, with real signals to real processes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distcls.engine.stopping import preemption
from distcls.engine.stopping.preemption import StopRequest
from tests.engine.launching import HANGS_S

LAUNCHER_MARKS = {
    name for name in os.environ if name == "LOCAL_RANK" or name.startswith(("ACCELERATE_", "TORCHELASTIC_"))
}
PLAIN = {name: value for name, value in os.environ.items() if name not in LAUNCHER_MARKS}


@pytest.fixture
def stop(monkeypatch):
    for name in LAUNCHER_MARKS:
        monkeypatch.delenv(name)
    request = StopRequest()
    request.install()
    yield request
    request.uninstall()


def python(code, **environment):
    process = [sys.executable, "-c", code]
    return subprocess.Popen(process, stdout=subprocess.PIPE, text=True, env={**PLAIN, **environment})


def test_nobody_asked(stop):
    assert stop.requested is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_is_a_request(stop, number):
    os.kill(os.getpid(), number)
    assert stop.requested == number.name


def test_the_first_reason_stays(stop):
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert stop.requested == "SIGUSR2"


def test_ctrl_c_twice_within_a_second_is_one_and_later_is_an_order(stop, monkeypatch):
    monkeypatch.setattr(preemption, "ONE_PRESS_S", 1000.0)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested == "SIGINT"
    monkeypatch.setattr(preemption, "ONE_PRESS_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_uninstall_puts_the_old_handlers_back():
    before = [signal.getsignal(number) for number in preemption.SIGNALS]
    request = StopRequest()
    request.install()
    assert [signal.getsignal(number) for number in preemption.SIGNALS] != before
    request.uninstall()
    assert [signal.getsignal(number) for number in preemption.SIGNALS] == before


def test_stop_file(tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "LOOK_EVERY_S", 1000.0)
    request = StopRequest(tmp_path / "stop")
    assert request.requested is None
    (tmp_path / "stop").touch()
    assert request.requested is None, "it does not look again so soon"
    monkeypatch.setattr(preemption, "LOOK_EVERY_S", 0.0)
    assert request.requested == f"stop file {tmp_path / 'stop'}"
    request.done()
    assert StopRequest(tmp_path / "stop").requested is None
    request.done()


def test_a_file_system_that_does_not_answer_is_no_request_and_no_error(tmp_path, monkeypatch):
    def stale(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(Path, "exists", stale)
    assert StopRequest(tmp_path / "stop").requested is None


def test_asking_is_cheap(tmp_path, monkeypatch):
    """The stop file is checked at most once a second, however often `requested` is read."""
    now, looks = [5.0], []
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Path, "exists", lambda path: looks.append((now[0], path)))
    request = StopRequest(tmp_path / "stop")
    for _ in range(100):
        now[0] += 0.125
        assert request.requested is None
    assert looks == [(second + 0.125, tmp_path / "stop") for second in range(5, 18)]


def test_importing_it_takes_no_torch():
    child = python(
        "import sys, distcls.engine.stopping.preemption, distcls.engine.records.run_folder; print('torch' in sys.modules)"
    )
    assert child.communicate(timeout=HANGS_S)[0] == "False\n"


CHILD = """
import os, sys, time
from distcls.engine.stopping.preemption import StopRequest
early = "early" in sys.argv
stop = StopRequest()
def ready():
    print("ready", os.getpid(), flush=True)
if early:                      # the parent dies between this process's start and install()
    parent = os.getppid()
    ready()
    while os.getppid() == parent:
        time.sleep(0.01)
stop.install()
if not early:
    ready()
deadline = time.monotonic() + float(sys.argv[1])
while not stop.requested and time.monotonic() < deadline:
    time.sleep(0.01)
print(stop.requested, flush=True)
"""

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", os.environ["CHILD"], *sys.argv[1:]])
print("parent", os.getpid(), flush=True)
time.sleep(1000)
"""


def after_killing_the_parent(*arguments, **environment):
    """Start a parent that starts a child, and kill -9 the parent; returns its process id and the child's last line."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**PLAIN, "CHILD": CHILD, **environment},
    )
    lines = {parent.stdout.readline().split()[0] for _ in range(2)}
    assert lines == {"parent", "ready"}
    parent.kill()
    parent.wait()
    return parent.pid, parent.stdout.read().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("moment", [(), ("early",)], ids=["running", "before install"])
@pytest.mark.parametrize("mark", ["LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"])
def test_a_killed_launcher_stops_its_orphan(moment, mark):
    pid, said = after_killing_the_parent("1000", *moment, **{mark: "0"})
    assert said == f"the launcher (process {pid}) died"


def test_without_a_launcher_a_run_outlives_its_shell():
    assert after_killing_the_parent("0.5")[1] == "None"
