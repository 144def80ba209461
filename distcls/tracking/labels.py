"""What a run is called on W&B."""

from collections.abc import Mapping
from typing import Any

GIVEN = ("project", "entity", "tags", "notes")  # taken from the recipe as they are


def run_labels(name: str, tracking: Mapping[str, Any], slurm: Mapping[str, str]) -> dict[str, Any]:
    """The labels among WandbTracker's arguments; a recipe that names neither run nor group gets the SLURM job's.

    Args:
        name: the recipe's.
        tracking: its block of that name, with all keys.
        slurm: ids of the first attempt, so that a run keeps its name over all of them.
    """
    own, group = _of_job(name, slurm)
    labels = {"name": tracking["name"] or own, "group": tracking["group"] or group}
    return labels | {key: tracking[key] for key in GIVEN}


def _of_job(name: str, slurm: Mapping[str, str]) -> tuple[str, str]:
    if "array_job_id" in slurm:
        job = f"{slurm['array_job_id']}_{slurm.get('array_task_id', '0')}"
        return f"{name}-{job}", f"{name}-{slurm['array_job_id']}"
    return (f"{name}-{slurm['job_id']}" if "job_id" in slurm else name), name
