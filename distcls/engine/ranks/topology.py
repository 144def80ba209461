"""The rank of this process and the size of the run, from the environment that the launcher or srun provides."""

import os
import re
from collections.abc import Mapping

from distcls.errors import UserError


def launched_ranks(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int, int]:
    """(rank, world size, local rank, local world size) from the launcher's environment; (0, 1, 0, 1) without one.

    `srun` sets only SLURM_* variables, which torch does not read, so they are copied to the names that it reads. Only
    those of a job step count: a batch script has SLURM_PROCID and SLURM_NTASKS too, but a process that it starts
    without srun is alone.

    Raises:
        UserError: the process is a task of a heterogeneous job.
    """
    if "RANK" not in environment:
        refuse_components(environment)
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            ranks = _slurm_ranks(environment)
            os.environ.update(ranks)
            environment = {**environment, **ranks}
    world = int(environment.get("WORLD_SIZE", "1"))
    return (
        int(environment.get("RANK", "0")),
        world,
        int(environment.get("LOCAL_RANK", "0")),
        int(environment.get("LOCAL_WORLD_SIZE", str(world))),
    )


def cores_per_rank(local_world_size: int, environment: Mapping[str, str] = os.environ) -> int:
    """Cores per rank on this node, of those that this process may use: SLURM often grants only part of a machine.

    srun may already have bound each task to its own cores, which must not be divided again; under srun,
    `--cpus-per-task` decides if it was given.
    """
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_CPUS_PER_TASK" in environment:
        cores = int(environment["SLURM_CPUS_PER_TASK"]) * _tasks_here(environment)
    else:
        cores = len(os.sched_getaffinity(0))
    return max(1, cores // local_world_size)


def refuse_components(environment: Mapping[str, str]) -> None:
    """Refuse heterogeneous jobs and steps: each component numbers its own tasks, so each would train a run of its own.

    Raises:
        UserError: srun started this task in a heterogeneous job or step.
    """
    components = int(environment.get("SLURM_HET_SIZE", "1"))
    if "SLURM_STEP_NUM_TASKS" in environment and components > 1:
        raise UserError(
            f"SLURM_HET_SIZE={components}: a heterogeneous job, got {components} components, expected one: start the "
            "training by an sbatch and an srun without ':', on nodes of one kind"
        )


def slurm_meeting_point(environment: Mapping[str, str]) -> tuple[str, int]:
    """(address, port) of rank 0 of this step; MASTER_ADDR and MASTER_PORT take precedence if they are set.

    Jobs that share a node must not share a port, and the previous port of a requeued job may not be free yet: each job
    cycles through eight ports, below Linux's ephemeral ports (32768 and up).
    """
    turn = int(environment.get("SLURM_RESTART_COUNT", "0")) % 8
    port = 20000 + (8 * int(environment["SLURM_JOB_ID"]) + turn) % 12000
    address = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
    return address, int(environment.get("MASTER_PORT", port))


def _slurm_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    address, port = slurm_meeting_point(environment)
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(_tasks_here(environment)),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Tasks of this step on this node; ``4(x2),2`` means 4, 4 and 2 on three nodes."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment["SLURM_STEP_TASKS_PER_NODE"])
    return [int(count) for count, times in parts for _ in range(int(times or 1))][int(environment["SLURM_NODEID"])]


def _first_host(nodelist: str) -> str:
    """``gpu[003-007,9],cpu1`` -> ``gpu003``. Parses SLURM's node list itself, because containers lack scontrol."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
