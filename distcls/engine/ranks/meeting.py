"""Nodes first exchange, through the launcher's store, whether every rank is ready to form the process group.

Without this, a rank that cannot start (its node lacks the data or a network interface) would leave the ranks of other
nodes waiting until the timeout: a launcher ends only the ranks of its own node.
"""

import contextlib
import os
import socket
from datetime import timedelta

import torch

from distcls.engine.ranks.collectives import OtherRankFailed
from distcls.engine.ranks.network import unreachable
from distcls.errors import UserError

# Without a launcher (srun), rank 0 serves the store for as long as a reference to it exists. Other ranks may still be
# reading, and the process group that is formed next uses the same server.
_stores: list[torch.distributed.Store] = []
LINGER = timedelta(seconds=10)  # wait for the others to read the failure: the store dies with rank 0's launcher


def meet(rank: int, world_size: int, error: UserError | None, timeout_s: float) -> None:
    """Wait for all ranks; raise on all of them as soon as one has an `error`.

    Raises:
        UserError: this rank's own error; otherwise OtherRankFailed with another rank's; or the ranks that have not
            arrived within `timeout_s` seconds; or the store cannot be reached.
    """
    timeout = timedelta(seconds=timeout_s)
    host = f"rank {rank} on {socket.gethostname()}"
    try:
        everyone, _, _ = next(iter(torch.distributed.rendezvous("env://", timeout=timeout)))
        _stores.append(everyone)
        store = torch.distributed.PrefixStore(f"distcls/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", everyone)
        if error is not None:
            store.set("failed", f"{host}: {error}")
            store.set("all", "")  # no rank needs to wait for those that have not arrived
        store.set(str(rank), "here")
        if store.add("arrived", 1) == world_size:
            store.set("all", "")
        try:
            store.wait(["all"], timeout)
        except torch.distributed.DistStoreError:
            absent = [str(other) for other in range(world_size) if not store.check([str(other)])]
            raise UserError(
                f"only {world_size - len(absent)} of {world_size} ranks have come within {timeout_s:g} s, missing: "
                f"rank {', '.join(absent)}: is the command running on every node?"
            ) from None
        failed = store.get("failed").decode() if store.check(["failed"]) else None
        if failed is not None:
            if store.add("read", 1) == world_size:
                store.set("all read", "")
            with contextlib.suppress(torch.distributed.DistError):
                store.wait(["all read"], LINGER)
    except (torch.distributed.DistError, RuntimeError) as broken:
        if error is None:
            raise unreachable(broken) from broken
        raise error from None
    if error is not None:
        raise error
    if failed is not None:
        raise OtherRankFailed(failed)
