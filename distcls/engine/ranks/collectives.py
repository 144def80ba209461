"""Collectives for objects and tensors, and the check that what ranks must share is equal on all of them."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from distcls.engine.records.same_run import MISSING, differences
from distcls.errors import UserError


def gather(value: Any) -> list:
    """Every rank's JSON-serialisable value, on every rank, in rank order."""
    return gather_object([value])


def gather_rows(own: Tensor, world_size: int) -> Tensor:
    """Concatenate the equally shaped tensors (N, ...) of all ranks in rank order: (world_size * N, ...)."""
    if world_size == 1:
        return own
    everyone = [torch.empty_like(own) for _ in range(world_size)]
    torch.distributed.all_gather(everyone, own)
    return torch.cat(everyone)


def broadcast(value: Any) -> Any:
    """Rank 0's value on every rank."""
    return broadcast_object_list([value])[0]


def gather_apart(world_size: int, timeout: timedelta) -> Callable[[Any], list]:
    """A `gather` for a background thread, over a process group of its own. Collective.

    All ranks must issue the collectives of a group in the same order, which a thread that shared the training's group
    could not guarantee. The group uses gloo on GPUs too, because only small objects are gathered.
    """
    if world_size == 1:
        return lambda value: [value]
    group = torch.distributed.new_group(backend="gloo", timeout=timeout)
    assert not isinstance(group, int)  # torch returns an int on a rank outside the group

    def gather_in_group(value: Any) -> list:
        everyone: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(everyone, value, group=group)
        return everyone

    return gather_in_group


@contextmanager
def together(rank: int, world_size: int) -> Iterator[None]:
    """A block before training that must succeed on all ranks or on none. Collective at its end.

    If it fails on any rank, the rank that failed raises its own error and every other rank an OtherRankFailed that
    names it, instead of waiting in the next collective for a rank that has exited.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    said = None if error is None else f"rank {rank} on {socket.gethostname()}: {error}"
    failures = [one for one in gather(said) if one] if world_size > 1 else []
    if isinstance(error, UserError) and len(failures) < world_size:
        error.on_one_rank = True
    if error is not None:
        raise error
    if failures:
        raise OtherRankFailed("\n".join(failures))


class OtherRankFailed(UserError):
    """Another rank could not start; it prints the reason itself."""


def same_on_all_ranks(facts: Mapping[str, Any]) -> None:
    """Compare what every rank must share (code, recipe, plug-ins, data) before training. Collective.

    Raises:
        UserError: names the first fact that differs, with the hosts and ranks on either side.
    """
    everyone = gather((socket.gethostname(), dict(facts)))
    host, first = everyone[0]
    for rank, (other, theirs) in enumerate(everyone):
        for key, here, there in differences(first, theirs):
            raise UserError(
                f"rank {rank} on {other} differs from rank 0 on {host}: {key} is {_said(there)} there "
                f"and {_said(here)} here: {_remedy(key)}"
            )


def _remedy(key: str) -> str:
    if key.startswith("code."):
        return "start all nodes from one shared checkout and environment, or install the same versions on each"
    if key.startswith("data."):
        return "copy the same file to every node, `distcls data check FILE` finds a damaged one"
    return "give every node the same files and the same command"


def _said(value: Any) -> str:
    return "missing" if value is MISSING else repr(value)


def on_rank_zero(rank: int, work: Callable[[], Any]) -> Any:
    """Do `work` on rank 0, and return its result or raise its UserError on every rank. Collective."""
    result: Any = None
    error: UserError | None = None
    if rank == 0:
        try:
            result = work()
        except UserError as raised:
            error = raised
    result, error = broadcast((result, error))
    if error is not None:
        raise error
    return result
