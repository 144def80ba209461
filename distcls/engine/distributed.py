"""Ranks: the Accelerator that the recipe asks for, and the few collectives that the rest of the engine uses.

The recipe is the only authority on strategy, precision and accumulation; the launcher gives the topology. `preflight`
therefore runs before any process group or GPU exists and names every setting of the launcher that says otherwise.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import nn

from distcls.engine.run_folder import differences
from distcls.errors import UserError

# A collective that waits longer than this has lost a rank: the run ends on all of them. Evaluation and the slowest
# save fit within.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


def preflight(*, precision: str, strategy: str, environment: Mapping[str, str] | None = None) -> None:
    """Compare the recipe with what the launcher put into the environment.

    `accelerate launch` writes ACCELERATE_MIXED_PRECISION=no and ACCELERATE_DYNAMO_BACKEND=NO when nobody asked for
    anything, so these two values contradict no recipe.

    Raises:
        UserError: one line for each contradiction.
    """
    said = os.environ if environment is None else environment
    wrong = []
    launcher_precision = said.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher_precision not in ("no", precision):
        wrong.append(
            f"train.precision is {precision!r}, but the launcher says ACCELERATE_MIXED_PRECISION={launcher_precision}: "
            f"start it without --mixed_precision, or set train.precision={launcher_precision}"
        )
    if said.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        wrong.append(
            "the launcher asks for torch.compile (ACCELERATE_DYNAMO_BACKEND): start it without --dynamo_backend"
        )
    if int(said.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) != 1:
        wrong.append(
            "the launcher sets ACCELERATE_GRADIENT_ACCUMULATION_STEPS: "
            "use train.accumulation_steps in the recipe instead"
        )
    for variable, flag in (("ACCELERATE_USE_DEEPSPEED", "--use_deepspeed"), ("ACCELERATE_USE_FSDP", "--use_fsdp")):
        if said.get(variable, "false").lower() in ("1", "true", "yes"):
            wrong.append(
                f"distributed.strategy is {strategy!r}, but the launcher says {variable}={said[variable]}: "
                f"start it without {flag}"
            )
    if wrong:
        raise UserError("the launcher contradicts the recipe:\n" + "\n".join(f"  {line}" for line in wrong))


def launched_ranks(environment: Mapping[str, str] | None = None) -> tuple[int, int, int, int]:
    """(rank, world size, local rank, local world size) as the launcher put them into the environment; one process
    without one.

    `srun` sets SLURM_* only, which torch does not read: they are copied to the names that it does.
    """
    said = os.environ if environment is None else environment
    if "RANK" not in said and int(said.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in said:
        _adopt_slurm(said)
    world = int(said.get("WORLD_SIZE", "1"))
    return (
        int(said.get("RANK", "0")),
        world,
        int(said.get("LOCAL_RANK", "0")),
        int(said.get("LOCAL_WORLD_SIZE", str(world))),
    )


def _adopt_slurm(said: Mapping[str, str]) -> None:
    first = _first_host(said.get("SLURM_STEP_NODELIST") or said["SLURM_JOB_NODELIST"])
    tasks_here = (
        said.get("SLURM_STEP_TASKS_PER_NODE", said.get("SLURM_TASKS_PER_NODE", "1")).split("(")[0].split(",")[0]
    )
    os.environ.update(
        RANK=said["SLURM_PROCID"],
        WORLD_SIZE=said["SLURM_NTASKS"],
        LOCAL_RANK=said["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=tasks_here,
    )
    os.environ.setdefault("MASTER_ADDR", first)
    # Jobs that share a node must not share a port; a requeued job may find its old one still closing.
    os.environ.setdefault(
        "MASTER_PORT", str(20000 + (int(said["SLURM_JOB_ID"]) + int(said.get("SLURM_RESTART_COUNT", 0))) % 10000)
    )


def _first_host(nodelist: str) -> str:
    """``gpu[003-007,9],cpu1`` -> ``gpu003``: SLURM's compressed list, read without scontrol, which containers lack."""
    prefix, bracket, rest = nodelist.partition("[")
    if not bracket or "," in prefix:
        return nodelist.split(",")[0]
    return prefix + rest.split("]")[0].split(",")[0].split("-")[0]


def make_accelerator(*, precision: str) -> Accelerator:
    """The process group and device. Data stays out of `prepare`, and the learning rate is set by the trainer, never
    stepped.

    DDP does not broadcast buffers: each rank's BatchNorm statistics are its own in training and in the checkpoint, or a
    preempted run would not be the uninterrupted one. `averaged_buffers` serves evaluation and export.
    """
    cpu = not torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True  # batches have one shape
    if precision == "fp64" and not cpu:
        raise UserError(
            "train.precision=fp64 is for checks of exactness on a CPU: set CUDA_VISIBLE_DEVICES= to hide the GPUs"
        )
    return Accelerator(
        cpu=cpu,
        mixed_precision={"fp32": "no", "fp64": "no"}.get(precision, precision),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT),
        ],
    )


def gather(value: Any) -> list:
    """One JSON-able value from every rank, on every rank, in the order of ranks."""
    return gather_object([value])


def broadcast(value: Any) -> Any:
    """Rank 0's value on every rank."""
    return broadcast_object_list([value])[0]


@contextmanager
def together(rank: int, world_size: int) -> Iterator[None]:
    """A stretch before training that must succeed on all ranks or on none.

    A UserError on any rank leaves this block on every rank: the rank that failed raises its own, the others one that
    names it, instead of waiting in the next collective for a rank that is gone.
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
    """What every rank must share (recipe, plug-ins, data), compared before training.

    Raises:
        UserError: names the first fact that differs, with the hosts and ranks on either side.
    """
    everyone = gather((socket.gethostname(), dict(facts)))
    host, first = everyone[0]
    for rank, (other, theirs) in enumerate(everyone):
        for key, here, there in differences(first, theirs):
            raise UserError(
                f"rank {rank} on {other} differs from rank 0 on {host}: {key} is {there!r} there and {here!r} here: "
                "give every node the same files and the same command"
            )


def on_rank_zero(rank: int, work: Callable[[], Any]) -> Any:
    """Do `work` on rank 0 and give its result, or its UserError, to every rank."""
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


@contextmanager
def averaged_buffers(model: nn.Module, world_size: int) -> Iterator[None]:
    """Float buffers (BatchNorm's running statistics) averaged over ranks for the time of the block, each rank's own
    after it.

    The same as timm's `distribute_bn` with reduce, but on a copy.
    """
    if world_size == 1:
        yield
        return
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        torch.distributed.all_reduce(buffer)
        buffer /= world_size
    try:
        yield
    finally:
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)


def same_start(model: nn.Module, world_size: int) -> None:
    """Rank 0's weights and buffers on every rank, before the model is wrapped."""
    if world_size > 1:
        for tensor in model.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)
