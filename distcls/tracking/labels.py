"""The labels of a run on W&B: name, group, project, ..."""

from collections.abc import Mapping
from typing import Any

GIVEN = ("project", "entity", "tags", "notes")  # taken from the recipe as they are


def run_labels(name: str, tracking: Mapping[str, Any], slurm: Mapping[str, str]) -> dict[str, Any]:
    """The labels for WandbTracker; name and group default to those of the SLURM job.

    Args:
        name: of the recipe.
        tracking: the recipe's tracking block with all keys.
        slurm: job ids of the first attempt, so that all attempts have the same name.
    """
    own, group = _of_job(name, slurm)
    labels = {"name": tracking["name"] or own, "group": tracking["group"] or group}
    return labels | {key: tracking[key] for key in GIVEN}


def _of_job(name: str, slurm: Mapping[str, str]) -> tuple[str, str]:
    if "array_job_id" in slurm:
        job = f"{slurm['array_job_id']}_{slurm.get('array_task_id', '0')}"
        return f"{name}-{job}", f"{name}-{slurm['array_job_id']}"
    return (f"{name}-{slurm['job_id']}" if "job_id" in slurm else name), name
