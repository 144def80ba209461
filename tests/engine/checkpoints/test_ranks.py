"""Two ranks in two real processes, a pipe between them as the gather."""

import errno
import multiprocessing
import os
import signal
import time

import pytest
import torch

from distcls.engine.checkpoints import store as checkpoint
from distcls.engine.checkpoints.manifest import CheckpointError
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checkpoints.tensor_file import SaveFailed
from tests.engine.launching import HANGS_S

FORK = multiprocessing.get_context("fork")


def on_two_ranks(folder, work):
    """`work(store)` on both; -> what each returned, or the exception that left it."""
    ends = FORK.Pipe()
    answers = [FORK.Pipe(duplex=False) for _ in ends]

    def run(rank):
        def gather(own):
            ends[rank].send(own)
            other = ends[rank].recv()
            return [own, other] if rank == 0 else [other, own]

        store = CheckpointStore(folder, rank=rank, world_size=2, gather=gather)
        try:
            answers[rank][1].send(work(store))
        except Exception as error:
            answers[rank][1].send(error)

    processes = [FORK.Process(target=run, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    got = [reader.recv() if reader.poll(HANGS_S) else "HANGS" for reader, _ in answers]
    for process in processes:
        process.join(5)
        process.kill()
    return got


def save(store, step):
    share = {"buffers": {"mean": torch.full((4,), float(store.rank))}}
    if store.rank == 0:
        share["model"] = {"weight": torch.full((4,), float(step))}
    return store.save(step, share, {"samples": step} if store.rank == 0 else {"samples": -1})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_rank_gets_its_own_back(tmp_path):
    def work(store):
        save(store, 1)
        path = store.latest()
        state, tensors = store.load(path)
        return path.name, state, {stem: share.popitem()[1].tolist() for stem, share in tensors.items()}

    assert on_two_ranks(tmp_path, work) == [
        ("step_00000001", {"samples": 1}, {"buffers": [0.0] * 4, "model": [1.0] * 4}),
        ("step_00000001", {"samples": 1}, {"buffers": [1.0] * 4}),
    ]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_on_one_rank_aborts_on_both_and_the_next_save_works(tmp_path, bad):
    def work(store):
        save(store, 1)
        if store.rank == bad:
            original, checkpoint.write_tensors = checkpoint.write_tensors, full_disk
        try:
            save(store, 2)
        except SaveFailed as failure:
            if store.rank == bad:
                checkpoint.write_tensors = original
            while_failed = names(tmp_path) if store.rank == 0 else ["step_00000001"]
            return str(failure).replace(os.uname().nodename, "HOST"), while_failed, save(store, 3).name

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    text = (
        f"checkpoint {tmp_path / 'step_00000002'} was not written: rank {bad} on HOST: "
        "[Errno 28] No space left on device. Earlier checkpoints are untouched."
    )
    assert on_two_ranks(tmp_path, work) == [(text, ["step_00000001"], "step_00000003")] * 2
    assert names(tmp_path) == ["step_00000001", "step_00000003"]


def test_a_bug_on_one_rank_ends_both(tmp_path):
    def work(store):
        dtype = torch.complex128 if store.rank == 1 else torch.float32
        store.save(1, {"model": {"z": torch.zeros(1, dtype=dtype)}}, {})

    first, second = on_two_ranks(tmp_path, work)
    host = os.uname().nodename
    assert isinstance(second, TypeError)
    assert isinstance(first, RuntimeError)
    assert str(first) == f"rank 1 on {host}: TypeError: tensor 'z': safetensors has no torch.complex128"
    assert names(tmp_path) == []


def test_damage_to_one_rank_s_file_sends_both_to_the_one_before(tmp_path):
    on_two_ranks(tmp_path, lambda store: [save(store, 1), save(store, 2)])
    (tmp_path / "step_00000002" / "buffers.rank00001.safetensors").write_bytes(b"")
    assert [path.name for path in on_two_ranks(tmp_path, CheckpointStore.latest)] == ["step_00000001"] * 2
    assert names(tmp_path) == ["step_00000001", "step_00000002.corrupt"]


def test_what_one_rank_cannot_read_ends_both_and_renames_nothing(tmp_path):
    on_two_ranks(tmp_path, lambda store: [save(store, 1), save(store, 2)])

    def work(store):
        if store.rank == 1:
            checkpoint.check_file = away
        try:
            store.latest()
        except CheckpointError as error:
            return str(error)

    def away(path, entry):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    first, second = on_two_ranks(tmp_path, work)
    assert first == second
    file = tmp_path / "step_00000002/buffers.rank00001.safetensors"
    assert f"rank 1 on {os.uname().nodename}: [Errno 5] Input/output error: '{file}'. That is no damage" in first
    assert names(tmp_path) == ["step_00000001", "step_00000002"]


def test_nothing_valid_left_ends_both_with_76(tmp_path):
    on_two_ranks(tmp_path, lambda store: [save(store, 1), save(store, 2)])
    for step in (1, 2):
        (tmp_path / f"step_0000000{step}" / "MANIFEST.json").unlink()

    def work(store):
        try:
            store.latest()
        except CheckpointError as error:
            return error.exit_code

    assert on_two_ranks(tmp_path, work) == [76, 76]


def test_a_killed_rank_leaves_the_last_commit(tmp_path):
    def work(store):
        save(store, 1)
        if store.rank == 1:
            checkpoint.write_tensors = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            save(store, 2)
        checkpoint.write_tensors = lambda *_: time.sleep(0.2) or (0, "")
        try:
            save(store, 2)
        except (EOFError, BrokenPipeError):  # as a collective that lost its peer
            return "lost its peer"

    ends = FORK.Pipe()

    def run(rank):
        ends[1 - rank].close()

        def gather(own):
            ends[rank].send(own)
            other = ends[rank].recv()
            return [own, other] if rank == 0 else [other, own]

        os._exit(42 if work(CheckpointStore(tmp_path, rank=rank, world_size=2, gather=gather)) else 1)

    processes = [FORK.Process(target=run, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for end in ends:
        end.close()
    for process in processes:
        process.join(HANGS_S)
    assert [process.exitcode for process in processes] == [42, -signal.SIGKILL]
    on_two_ranks(tmp_path, CheckpointStore.latest)
    assert names(tmp_path) == ["step_00000001"]
