"""Atomic writing of output files, by one process at a time."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distcls.data.errors import DataError

_PATIENCE = 2.0  # seconds within which the processes of a killed conversion have exited


@contextmanager
def temporary(out: Path) -> Iterator[tuple[Path, int]]:
    """Path and descriptor of a temporary file for the caller to rename to `out`; removed at the end if it was not.

    The file is also the lock, which the kernel releases with the last process that holds it: the next conversion takes
    over the file that a killed one left behind.

    Raises:
        DataError: another process is writing `out`.
    """
    path = out.with_name(f".{out.name}.tmp")
    patience = time.monotonic() + _PATIENCE
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _locked(path, file):
                break
        except OSError:
            os.close(file)
            raise
        os.close(file)
        if time.monotonic() > patience:
            raise DataError(f"{out}: another `distcls data convert` is writing it: wait for it, or give another name")
        time.sleep(0.1)
    try:
        os.ftruncate(file, 0)
        try:
            yield path, file
        finally:
            if _is(path, file):
                path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _locked(path: Path, file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous holder may have renamed or removed the file in the meantime.
        return _is(path, file)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        return error.errno != errno.EWOULDBLOCK  # on a file system without locks, go on without one


def _is(path: Path, file: int) -> bool:
    return path.exists() and os.fstat(file).st_ino == path.stat().st_ino


def replace(path: Path, text: str) -> None:
    """Replace the content of a file atomically: if that fails, as on a full disk, the old content stays."""
    new = path.with_name(f".{path.name}.tmp")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)
