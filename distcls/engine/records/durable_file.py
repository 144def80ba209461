"""What survives a power cut: bytes that reach the disk whole, and names that change in one step. Imports no torch."""

import errno
import os
from pathlib import Path


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte of `data`; os.write alone may stop early (Linux: at 2 GiB, or on a nearly full disk)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable: a file's own fsync does not cover its name."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # fsync(2): a file system that has no such thing for folders
            raise
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """A new file, opened for writing; FileExistsError if there is one, so that two writers never share a file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` so that a reader, at any time and after any crash, sees the old content or the new, whole.

    Raises:
        OSError: it cannot be written; `filename` is `path`.
    """
    tmp = path.with_name(f".{path.name}.tmp")  # a fixed name: what a killed run left is overwritten, not collected
    try:
        tmp.unlink(missing_ok=True)
        fd = create(tmp)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(tmp, path)
        fsync_folder(path.parent)
    except OSError as error:  # os.write knows no name
        raise type(error)(error.errno, error.strerror, str(path)) from error
