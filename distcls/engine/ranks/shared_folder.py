"""Checks that the run folder is shared by all nodes, not a different folder of the same name on each."""

import secrets
import socket
import time
from pathlib import Path

from distcls.engine.ranks.collectives import gather, on_rank_zero
from distcls.errors import UserError

# NFS clients cache the attributes of a folder for up to a minute (acdirmax, 60 s by default).
NFS_CACHE_S = 65.0


def check_shared(folder: Path, rank: int, *, wait_s: float = NFS_CACHE_S) -> None:
    """Rank 0 creates a file of random name, which every rank must find. Collective.

    Args:
        folder: exists on rank 0.
        rank: of this process.
        wait_s: how long a rank looks for the file, in seconds.

    Raises:
        UserError: on all ranks; names the hosts that do not see the file.
    """
    token: Path = on_rank_zero(rank, lambda: _leave_token(folder))
    everyone = gather((socket.gethostname(), _appears(token, wait_s)))
    if rank == 0:
        token.unlink(missing_ok=True)
    blind: dict[str, str] = {}
    for other, (host, seen) in enumerate(everyone):
        if not seen:
            blind.setdefault(host, f"rank {other} on {host}")
    if blind:
        raise UserError(
            f"output_dir {folder} is not the same folder on all nodes: what rank 0 on {everyone[0][0]} wrote into it, "
            f"{', '.join(blind.values())} did not see within {wait_s:g} s: put it on a file system that all nodes "
            "share (NFS, Lustre, ...), under the same path"
        )


def _leave_token(folder: Path) -> Path:
    token = folder / f".shared_{secrets.token_hex(8)}"
    token.touch()
    return token


def _appears(file: Path, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            # List the folder rather than stat the file: NFS clients also cache that a name does not exist.
            if any(path.name == file.name for path in file.parent.iterdir()):
                return True
        except OSError:  # there is no such folder here
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
