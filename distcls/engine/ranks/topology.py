"""Which rank this process is: what the launcher, or srun, put into the environment."""

import os
import re
from collections.abc import Mapping

from distcls.errors import UserError


def launched_ranks(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int, int]:
    """(rank, world size, local rank, local world size) as the launcher put them into the environment; one process
    without one.

    `srun` sets SLURM_* only, which torch does not read: they are copied to the names that it does. Those of a step
    count: a batch script has SLURM_PROCID and SLURM_NTASKS as well, and a python started there is alone.

    Raises:
        UserError: it is a task of a heterogeneous job.
    """
    if "RANK" not in environment:
        refuse_components(environment)
    if "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
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
    """Cores that this process may use, shared between its node's ranks; SLURM gives fewer than the machine has.

    A task of srun may be bound to its own cores already, which are not to be divided again: there `--cpus-per-task`
    counts, if it was given.
    """
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_CPUS_PER_TASK" in environment:
        cores = int(environment["SLURM_CPUS_PER_TASK"]) * _tasks_here(environment)
    else:
        cores = len(os.sched_getaffinity(0))
    return max(1, cores // local_world_size)


def refuse_components(environment: Mapping[str, str]) -> None:
    """Each component of a heterogeneous job or step counts its own tasks: the components would train beside each other.

    Raises:
        UserError: srun started this task in one.
    """
    components = int(environment.get("SLURM_HET_SIZE", "1"))
    if "SLURM_STEP_NUM_TASKS" in environment and components > 1:
        raise UserError(
            f"SLURM_HET_SIZE={components}: a heterogeneous job, got {components} components, expected one: start the "
            "training by an sbatch and an srun without ':', on nodes of one kind"
        )


def slurm_meeting_point(environment: Mapping[str, str]) -> tuple[str, int]:
    """(address, port) of rank 0 of this step; MASTER_ADDR and MASTER_PORT where somebody has set them.

    Jobs that share a node must not share a port, and a requeued job may find its old one still closing: eight ports a
    job, used in turn, below those that Linux gives away (32768 and up).
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
    """Tasks of this step on this node: ``4(x2),2`` says 4, 4 and 2 for its nodes."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment["SLURM_STEP_TASKS_PER_NODE"])
    return [int(count) for count, times in parts for _ in range(int(times or 1))][int(environment["SLURM_NODEID"])]


def _first_host(nodelist: str) -> str:
    """``gpu[003-007,9],cpu1`` -> ``gpu003``: SLURM's compressed list, read without scontrol, which containers lack."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
