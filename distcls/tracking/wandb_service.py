"""wandb's service, the process `wandb-core` that writes and uploads: what it is told of us, and how it is ended."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from distcls.tracking.redact import redact


@contextlib.contextmanager
def redacted_argv() -> Iterator[None]:
    """wandb stores the command line of the process that starts a run."""
    argv, sys.argv = sys.argv, redact(sys.argv)
    try:
        yield
    finally:
        sys.argv = argv


def service_pids() -> list[int]:
    """The services that this process has started."""
    children = [int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    return [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().startswith("wandb-core")]


def close_service() -> None:
    """Wait until the service has written everything: `finish` of a run returns before that.

    Raises:
        RuntimeError: the service ended badly (wandb would leave the process with its status).
    """
    import wandb

    try:
        wandb.teardown()
    except SystemExit as left:
        raise RuntimeError(f"wandb's service ended with status {left.code}") from None


def kill_service() -> None:
    for pid in service_pids():
        os.kill(pid, signal.SIGKILL)


def end_service() -> None:
    """Kill the service, which an exit hook of wandb's would otherwise wait for as long as its upload takes."""
    kill_service()
    with contextlib.suppress(Exception):  # takes the exit hook away, then finds nobody to talk to
        close_service()
