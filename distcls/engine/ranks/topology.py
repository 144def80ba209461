"""Which rank this process is: what the launcher, or srun, put into the environment."""

import os
from collections.abc import Mapping


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


def cores_per_rank(local_world_size: int) -> int:
    """Cores that this process may use, shared between its node's ranks; SLURM gives fewer than the machine has."""
    return max(1, len(os.sched_getaffinity(0)) // local_world_size)


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
