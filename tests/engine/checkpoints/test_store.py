"""One process: what save, latest and load promise about what is on the disk."""

import errno
import json
import logging
import os
import re
import subprocess

import pytest
import torch

from distcls.engine.checkpoints.commit import Commit, remove_debris
from distcls.engine.checkpoints.manifest import CheckpointError, Damaged, encode_manifest, read_manifest
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.checkpoints.tensor_file import SaveFailed


def save(store, step, **options):
    tensors = {"model": {"weight": torch.full((3, 2), float(step)), "count": torch.tensor(step)}, "ema": {}}
    return store.save(step, tensors, {"epoch": step / 4, "samples": 8 * step}, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "run" / "checkpoints")


def test_what_was_saved_is_loaded(store):
    path = save(store, 12)
    assert path == store.folder / "step_00000012"
    assert store.latest() == path
    state, tensors = store.load(path)
    assert state == {"epoch": 3.0, "samples": 96}
    assert torch.equal(tensors["model"]["weight"], torch.full((3, 2), 12.0))
    assert tensors["model"]["count"].item() == 12
    assert tensors["ema"] == {}


def test_manifest_says_what_it_is(store):
    manifest = json.loads((save(store, 12, best=True) / "MANIFEST.json").read_text())
    head = {key: manifest[key] for key in ("schema", "step", "epoch", "samples", "world_size", "best")}
    assert head == {
        "schema": 2,
        "step": 12,
        "epoch": 3.0,
        "samples": 96,
        "world_size": 1,
        "best": True,
    }
    assert [file["name"] for file in manifest["files"]] == ["model.rank00000.safetensors", "ema.rank00000.safetensors"]


def test_state_that_json_changes_still_verifies(store):
    """The manifest's own hash is over what a reader parses: integer keys become strings, NaN stays."""
    path = store.save(1, {}, {"by_rank": {10: 1, 9: 2}, "best": float("-inf")})
    assert store.latest() == path
    assert store.load(path)[0] == {"by_rank": {"10": 1, "9": 2}, "best": float("-inf")}


def test_a_new_run_has_no_latest(store):
    assert store.latest() is None


def test_keeps_the_newest_and_the_best(store):
    for step in range(1, 7):
        save(store, step, best=step in (1, 3))
    assert names(store.folder) == ["step_00000003", "step_00000005", "step_00000006"]


def test_fewer_than_two_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"^checkpoint\.keep must be at least 2 \(the newest may turn out damaged\), got 1$"
    ):
        CheckpointStore(tmp_path, keep=1)


def test_a_step_can_be_saved_again(store):
    save(store, 4)
    path = store.save(4, {"model": {"weight": torch.ones(1)}}, {"second": True})
    assert store.load(path)[0] == {"second": True}
    assert names(store.folder) == ["step_00000004"]


def test_saving_below_newer_steps_keeps_what_was_saved(store):
    for step in (10, 20, 30):
        save(store, step)
    assert save(store, 5).exists()


FILES = ["MANIFEST.json", "model.rank00000.safetensors", "ema.rank00000.safetensors"]


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", [flip_a_bit, cut, os.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(store, caplog, file, harm):
    before, newest = save(store, 1), save(store, 2)
    harm(newest / file)
    with caplog.at_level(logging.WARNING):
        assert store.latest() == before
    assert names(store.folder) == ["step_00000001", "step_00000002.corrupt"]
    (warning,) = caplog.messages
    assert warning.startswith(f"checkpoint {newest} is damaged: {file} ")
    assert warning.endswith("It is kept as step_00000002.corrupt; trying the one before it.")
    with pytest.raises(CheckpointError):
        store.load(newest.with_name("step_00000002.corrupt"))


def test_every_flipped_bit_of_a_manifest_is_found(store):
    path = save(store, 1)
    manifest = path / "MANIFEST.json"
    data = manifest.read_bytes()
    meaning = json.loads(data)
    for position in range(0, len(data), 3):
        manifest.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        try:
            assert read_manifest(path) == {k: v for k, v in meaning.items() if k != "sha256"}
        except Damaged:
            continue


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip_a_bit, "model.rank00000.safetensors is not what was written: its sha256 differs"),
        (cut, "model.rank00000.safetensors has 159 bytes, 160 were written"),
        (os.unlink, "model.rank00000.safetensors is missing"),
    ],
)
def test_the_warning_names_file_and_reason(store, caplog, harm, reason):
    save(store, 1)
    harm(save(store, 2) / "model.rank00000.safetensors")
    store.latest()
    assert reason in caplog.text


def test_corrupt_ones_are_never_overwritten(store):
    save(store, 1)
    for _ in range(2):
        (save(store, 2) / "MANIFEST.json").unlink()
        store.latest()
    assert names(store.folder) == ["step_00000001", "step_00000002.corrupt", "step_00000002.corrupt.2"]


def test_nothing_valid_left_is_an_error_now_and_at_the_next_start(store):
    for step in (1, 2):
        (save(store, step) / "MANIFEST.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            store.latest()
        assert caught.value.exit_code == 76
        assert str(caught.value) == (
            f"no valid checkpoint is left in {store.folder}: step_00000001.corrupt, step_00000002.corrupt. "
            "To train from the beginning, give another output_dir."
        )


@pytest.mark.parametrize(
    ("schema", "wrote", "advice"),
    [
        (3, "newer", "update distcls"),
        (1, "older", "go on with that version, or give another output_dir"),
    ],
)
def test_another_schema_is_not_damage(store, schema, wrote, advice):
    path = save(store, 1)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    del manifest["sha256"]
    (path / "MANIFEST.json").write_bytes(encode_manifest({**manifest, "schema": schema}))
    with pytest.raises(CheckpointError) as caught:
        store.latest()
    assert str(caught.value) == (
        f"the checkpoints in {store.folder} cannot be read: {path} was written by {'an' if wrote == 'older' else 'a'} {wrote} distcls "
        f"(checkpoint schema {schema}; this one reads 2): {advice}"
    )
    assert path.exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
@pytest.mark.parametrize("name", ["MANIFEST.json", "model.rank00000.safetensors"])
def test_a_file_that_cannot_be_read_just_now_is_not_damage(store, monkeypatch, name, code):
    """Reads of an open file fail, as on a soft NFS mount whose server is away."""
    save(store, 1)
    path = save(store, 2)

    def away(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pathlib.Path.read_bytes" if name == "MANIFEST.json" else "hashlib.file_digest", away)
    with pytest.raises(CheckpointError) as caught:
        store.latest()
    assert str(caught.value) == (
        f"the checkpoints in {store.folder} cannot be read: [Errno {code}] {os.strerror(code)}: '{path / name}'. "
        "That is no damage, and it keeps its name: start again when the storage answers"
    )
    assert names(store.folder) == ["step_00000001", "step_00000002"]
    monkeypatch.undo()
    assert store.latest() == path


def test_another_number_of_ranks_is_refused_unless_a_rank_is_named(store):
    path = save(store, 1)
    other = CheckpointStore(store.folder, rank=0, world_size=2, gather=lambda own: [own, own])
    with pytest.raises(CheckpointError, match=r"it was written by 1 rank\(s\) and this run has 2"):
        other.load(path)
    assert other.load(path, rank=0)[1]["model"]["count"].item() == 1


def test_debris_of_the_dead_goes_and_a_live_writer_stays(store):
    save(store, 1)
    dead = store.folder / ".tmp_step_00000002.dead"
    dead.mkdir()
    (dead / "MANIFEST.json").write_text("half")
    (store.folder / ".tmp_step_00000003.empty").mkdir()
    pruned = store.folder / ".pruned_step_00000000.x"
    pruned.mkdir()
    live = Commit(store.folder, 4)
    remove_debris(store.folder)
    assert names(store.folder) == [live.path.name, "step_00000001"]
    live.abandon()
    assert names(store.folder) == ["step_00000001"]


def test_a_replacement_cut_in_two_gets_its_name_back(store):
    path = save(store, 7)
    path.rename(store.folder / ".replaced_step_00000007.x")
    assert store.latest() == path


def test_a_rename_that_reports_an_error_but_happened(store, monkeypatch):
    """As NFS does when the reply to a rename is lost and the client asks again."""
    rename = os.rename

    def lossy(source, target):
        rename(source, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(source))

    monkeypatch.setattr("os.rename", lossy)
    path = save(store, 1)
    monkeypatch.undo()
    assert store.latest() == path


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_full_disk_loses_nothing(store, monkeypatch, call):
    """The n-th call of every kind fails, for every n that a save reaches."""
    before = save(store, 1)
    real = getattr(os, call)
    for fails_at in range(20):
        calls = iter(range(1000))

        def full(*args, calls=calls, fails_at=fails_at, **kwargs):
            if next(calls) == fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(os, call, full)
        failure = None
        try:
            save(store, 2)
        except SaveFailed as caught:
            failure = str(caught)
        monkeypatch.undo()
        if failure is None:
            break
        assert failure == (
            f"checkpoint {store.folder / 'step_00000002'} was not written: [Errno 28] No space left on device. "
            "Earlier checkpoints are untouched."
        )
        assert store.load(before)[0]["samples"] == 8
        assert [name for name in names(store.folder) if name.startswith(".tmp")] == []
    assert fails_at > 0
    assert save(store, 3) == store.latest()


def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        store = CheckpointStore(disk / "checkpoints")
        before = save(store, 1)
        with pytest.raises(SaveFailed, match="No space left on device"):
            store.save(2, {"model": {"weight": torch.zeros(100_000)}}, {})
        assert names(store.folder) == ["step_00000001"]
        assert store.latest() == before
        assert save(store, 3).exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_power_cut_finds_bytes_before_names(store, monkeypatch):
    """No kill shows a missing fsync, so look at the order: files, their folder, the name, the folder of that."""
    save(store, 1)
    events = []
    fsync, rename = os.fsync, os.rename

    def traced_fsync(fd):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def traced_rename(source, target):
        events.append(f"-> {os.path.basename(target)}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "rename", traced_rename)
    save(store, 2)
    assert [re.sub(r"\.\w{8}$", "", event) for event in events] == [
        "model.rank00000.safetensors",
        "ema.rank00000.safetensors",
        "MANIFEST.json",
        ".tmp_step_00000002",
        "-> step_00000002",
        "checkpoints",
    ]


def test_a_bug_is_not_a_full_disk(store):
    with pytest.raises(TypeError, match=r"^tensor 'z': safetensors has no torch\.complex128$"):
        store.save(1, {"model": {"z": torch.zeros(1, dtype=torch.complex128)}}, {})
    assert names(store.folder) == []
