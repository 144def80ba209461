"""Names of runs whose recipe gives none."""

from collections.abc import Mapping


def default_labels(name: str, slurm: Mapping[str, str]) -> tuple[str, str]:
    """Name and group of a run whose recipe gives none.

    Args:
        name: the recipe's.
        slurm: ids of the first attempt, so that a run keeps its name over all of them.
    """
    if "array_job_id" in slurm:
        job = f"{slurm['array_job_id']}_{slurm.get('array_task_id', '0')}"
        return f"{name}-{job}", f"{name}-{slurm['array_job_id']}"
    return (f"{name}-{slurm['job_id']}" if "job_id" in slurm else name), name
