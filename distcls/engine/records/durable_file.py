"""File writes that survive a power cut: complete contents, and atomic changes of names. Imports no torch."""

import errno
import os
from pathlib import Path


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`; a single os.write may write less (Linux: at most 2 GiB, or on a nearly full disk)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable: fsync of a file does not cover its name."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # fsync(2): the file system does not support it for folders
            raise
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """Create a file and open it for writing; FileExistsError if it exists, so that two writers never share a file."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def replace_file(path: Path, data: bytes) -> None:
    """Replace the content of `path` atomically: at any time and after any crash, a reader sees the old or the new.

    Raises:
        OSError: it cannot be written; `filename` is `path`.
    """
    tmp = path.with_name(f".{path.name}.tmp")  # a fixed name, so that leftovers of killed runs do not pile up
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
    except OSError as error:  # os.write does not name its file
        raise OSError(error.errno, error.strerror, str(path)) from error
