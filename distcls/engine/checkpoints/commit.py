"""What one process does with the checkpoints folder: begin, commit, scan, prune. The ranks' part is in store.py.

checkpoints/step_00001234/                  committed: MANIFEST.json and the files it lists
checkpoints/step_00001234.corrupt/          found damaged; never deleted by us
checkpoints/.tmp_step_00001234.TOKEN/       being written; the writer holds a lock on its MANIFEST.json
checkpoints/.replaced_step_00001234.TOKEN/  the old one while a new save takes its name
checkpoints/.pruned_step_00001234.TOKEN/    being deleted; renamed so that it does not look damaged
"""

import fcntl
import logging
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from distcls.engine.checkpoints.manifest import MANIFEST, CheckpointError, Damaged, encode_manifest, read_manifest
from distcls.engine.records.durable_file import create, fsync_folder, write_all

STEP = re.compile(r"step_(\d+)")

log = logging.getLogger(__name__)


class Commit:
    """A checkpoint being written (rank 0's part): first a temporary folder, then the manifest, then the final name.

    Args:
        folder: the run's `checkpoints/`.
        step: optimizer steps.

    Raises:
        OSError: the disk's.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.token = secrets.token_hex(4)
        self.final = folder / f"step_{step:08d}"
        self.path = folder / f".tmp_{self.final.name}.{self.token}"
        self._closed = False
        if not folder.is_dir():
            folder.mkdir(parents=True)
            fsync_folder(folder.parent)
        self.path.mkdir()
        try:
            self._manifest = create(self.path / MANIFEST)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        # Held until the name is final or the process dies, so that remove_debris recognises a live writer.
        _lock(self._manifest)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest and give the folder its final name; then the checkpoint survives any crash."""
        write_all(self._manifest, encode_manifest({**manifest, "token": self.token}))
        os.fsync(self._manifest)
        fsync_folder(self.path)
        replaced = None
        if self.final.exists():
            replaced = self.final.with_name(f".replaced_{self.final.name}.{self.token}")
            os.rename(self.final, replaced)
        try:
            os.rename(self.path, self.final)
        except OSError:
            if not self._has_arrived():
                if replaced:
                    os.rename(replaced, self.final)
                raise
        fsync_folder(self.final.parent)
        self._close()
        if replaced:
            discard(replaced)

    def abandon(self) -> None:
        """Undo everything after an error; checkpoints committed before are not touched."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._close()

    def _close(self) -> None:
        if not self._closed:
            os.close(self._manifest)
            self._closed = True

    def _has_arrived(self) -> bool:
        """Whether a rename that reported an error has happened all the same, as on NFS; the token shows it."""
        try:
            return read_manifest(self.final)["token"] == self.token
        except (Damaged, KeyError):
            return False


def committed(folder: Path) -> list[Path]:
    """The committed checkpoints, newest step first."""
    found = [(int(match[1]), path) for path in _entries(folder) if (match := STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def corrupt(folder: Path) -> list[Path]:
    """The checkpoints that were set aside as damaged, by name."""
    return sorted(path for path in _entries(folder) if re.match(r"step_\d+\.corrupt", path.name))


def condemn(path: Path, reason: str) -> None:
    """Rename a damaged checkpoint out of the way, with a warning."""
    names = (f"{path.name}.corrupt{suffix}" for suffix in ("", *(f".{n}" for n in range(2, 1000))))
    target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    os.rename(path, target)
    fsync_folder(path.parent)
    log.warning("checkpoint %s is damaged: %s. It is kept as %s; trying the one before it.", path, reason, target.name)


def prune(folder: Path, keep: int, saved: Path) -> None:
    """Delete old checkpoints: all but the newest `keep`, the newest marked best, and the one just saved.

    A disk error is only a warning, because the new checkpoint is safe already.
    """
    found = committed(folder)
    kept = {*found[:keep], saved, next((path for path in found if _is_best(path)), saved)}
    for path in found:
        if path not in kept:
            gone = path.with_name(f".pruned_{path.name}.{secrets.token_hex(4)}")
            try:
                os.rename(path, gone)
            except OSError as error:
                log.warning("%s could not be deleted: %s", path, error)
            else:
                discard(gone)


def remove_debris(folder: Path) -> None:
    """Delete what killed runs left behind, except what a live process is writing; complete an interrupted replacement.

    Raises:
        OSError: a replaced checkpoint could not get its name back.
    """
    for path in _entries(folder):
        if match := re.fullmatch(r"\.replaced_(step_\d+)\.\w+", path.name):
            final = folder / match[1]
            if final.exists():
                discard(path)
            else:  # killed between the two renames: the old checkpoint is the last valid one
                os.rename(path, final)
                fsync_folder(folder)
        elif re.match(r"\.pruned_step_\d+\.", path.name) or (
            re.match(r"\.tmp_step_\d+\.", path.name) and not _has_writer(path)
        ):
            discard(path)


def discard(path: Path) -> None:
    """Delete a folder; a disk error is only a warning."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        log.warning("%s could not be deleted: %s", path, error)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_best(path: Path) -> bool:
    try:
        return read_manifest(path)["best"]
    except (Damaged, CheckpointError, OSError):
        return False


def _lock(fd: int) -> bool:
    """Take the lock; False if a live process holds it.

    On a file system without locks every writer looks dead; there the lock of run_folder.py protects the folder.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.debug("no file locks here: %s", error)
    return True


def _has_writer(tmp: Path) -> bool:
    try:
        fd = os.open(tmp / MANIFEST, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)
