"""Ensures that only one live process uses a run folder. Imports no torch."""

import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distcls.errors import UserError


class RunLock:
    """A lock on `run.lock` that the kernel releases when its process dies, however it dies.

    On NFS it works across hosts if the server has a lock service; after the crash of a whole node, the server may keep
    it for a minute or two. On file systems without locks, the host, process id and process start time in the file
    decide, which protects against processes of the same host only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fd: int | None = None

    def take(self, wait_s: float) -> None:
        """Take the lock, waiting for it if necessary.

        Raises:
            UserError: another live process, which the text names, still has it after `wait_s` seconds.
        """
        fd = os.open(self.folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + wait_s
        while _is_taken(fd):
            if time.monotonic() >= deadline:
                holder = _holder(fd)
                os.close(fd)
                raise UserError(
                    f"output_dir {self.folder} is in use by process {holder.get('pid', '?')} on "
                    f"{holder.get('host', '?')}, since {holder.get('since', '?')}: "
                    "wait for it, end it, or give another output_dir"
                )
            time.sleep(0.1)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        me = {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_of(os.getpid()), "since": since}
        text = json.dumps(me).encode()
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
        self._fd = fd

    def release(self) -> None:
        """Release the lock, if it was taken."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        holder = _holder(fd)
        if holder.get("host") != socket.gethostname():
            return False
        started = _start_of(holder.get("pid"))
        return started is not None and started == holder.get("started")
    return False


def _start_of(pid: object) -> str | None:
    """Boot id and start time of a process, None if there is none. In containers every run may have process id 1."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return None


def _holder(fd: int) -> dict[str, Any]:
    try:
        return json.loads(os.pread(fd, 4096, 0))
    except ValueError:  # the holder has not written its entry yet
        return {}
