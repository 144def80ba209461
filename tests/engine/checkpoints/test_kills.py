"""kill -9 while a checkpoint is being saved: whatever was acknowledged is there afterwards.

Children are forked, so that torch is imported once; they write, with real fsyncs, to a real file system.
"""

import os
import random
import select
import signal
import time

import pytest
import torch

from distcls.engine.checkpoints.commit import committed
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.stopping.outcome import PREEMPTED
from distcls.engine.stopping.preemption import StopRequest

KILLED = 9


def share(step):
    return {
        "model": {"weight": torch.full((256,), float(step))},
        "optimizer": {"momentum": torch.full((256,), -float(step))},
    }


def check(store, acknowledged):
    """The newest checkpoint is whole, and not older than what was acknowledged; the folder is clean."""
    path = store.latest()
    state, tensors = store.load(path)
    assert state["step"] >= acknowledged
    assert torch.equal(tensors["model"]["weight"], share(state["step"])["model"]["weight"])
    assert torch.equal(tensors["optimizer"]["momentum"], share(state["step"])["optimizer"]["momentum"])
    for other in committed(store.folder):  # nothing half-deleted stays among them
        assert set(store.load(other)[1]) == {"model", "optimizer"}
    assert all(entry.name.startswith("step_") and "corrupt" not in entry.name for entry in store.folder.iterdir())
    return state["step"]


def forked(work):
    """Run `work` in a child that never returns to pytest."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def test_sixty_four_kills_at_random_moments(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    dice = random.Random(0)
    acknowledged, debris = 0, 0
    store.save(0, share(0), {"step": 0})
    for turn in range(64):
        reader, writer = os.pipe()

        def save_for_ever(first=acknowledged, writer=writer):
            child = CheckpointStore(store.folder)
            for step in range(first, first + 1000):  # begins with the step that is there: a replacement, too
                child.save(step, share(step), {"step": step})
                os.write(writer, step.to_bytes(8, "little"))

        pid = forked(save_for_ever)
        os.close(writer)
        if turn % 2:  # every other child gets as far as to a step of its own, however slow the machine is
            for step in (acknowledged, acknowledged + 1):
                assert os.read(reader, 8) == step.to_bytes(8, "little")
            acknowledged += 1
        time.sleep(dice.uniform(0.001, 0.08))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        while said := os.read(reader, 8):
            acknowledged = int.from_bytes(said, "little")
        os.close(reader)
        debris += any(entry.name.startswith(".") for entry in store.folder.iterdir())
        acknowledged = check(store, acknowledged)
    assert acknowledged >= 32
    assert debris > 5, "many kills must fall into a save"


def die_at(kind, n, when):
    """In a child: the n-th call of os.`kind` is the last thing this process does: not, by half or wholly."""
    real = getattr(os, kind)
    calls = iter(range(1_000_000))

    def fatal(*args, **kwargs):
        if next(calls) != n:
            return real(*args, **kwargs)
        if when == "after":
            real(*args, **kwargs)
        elif when == "halfway":
            real(args[0], args[1][: len(args[1]) // 2])
        os._exit(KILLED)

    setattr(os, kind, fatal)


POINTS = [
    (kind, when)
    for kind in ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir")
    for when in ("before", "after")
]


@pytest.mark.parametrize(("kind", "when"), [*POINTS, ("write", "halfway")])
@pytest.mark.parametrize("step", [3, 2], ids=["new", "again"])
def test_a_kill_at_each_point_of_the_protocol(tmp_path, kind, when, step):
    """Saving step 3 commits and prunes step 1; saving step 2 again replaces it."""
    points = 0
    for n in range(40):
        store = CheckpointStore(tmp_path / str(n))
        for earlier in (1, 2):
            store.save(earlier, share(earlier), {"step": earlier})

        def save(store=store, n=n):
            die_at(kind, n, when)
            store.save(step, share(step), {"step": step})

        code = os.waitstatus_to_exitcode(os.waitpid(forked(save), 0)[1])
        check(store, acknowledged=step if code == 0 else 2)
        store.save(4, share(4), {"step": 4})
        assert check(store, acknowledged=4) == 4
        if code == 0:
            break
        assert code == KILLED
        points += 1
    assert code == 0
    assert points > 0


def test_signals_during_a_save_do_not_break_it(tmp_path):
    """SIGTERM, SIGUSR2 and SIGTERM again while saving: the save is finished, and the process leaves with 75."""
    store = CheckpointStore(tmp_path / "checkpoints")
    reader, writer = os.pipe()

    def train():
        stop = StopRequest()
        stop.install()
        step = 0
        while not stop.requested:
            step += 1
            store.save(step, share(step), {"step": step})
            os.write(writer, step.to_bytes(8, "little"))
        store.save(step + 1, share(step + 1), {"step": step + 1})
        os._exit(PREEMPTED)

    pid = forked(train)
    os.close(writer)
    os.read(reader, 8)
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
        os.kill(pid, number)
        time.sleep(0.002)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    last = 1
    while select.select([reader], [], [], 1)[0] and (said := os.read(reader, 8)):
        last = int.from_bytes(said, "little")
    os.close(reader)
    assert check(store, last) == last + 1
