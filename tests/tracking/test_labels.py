"""Names of runs on W&B."""

import pytest

from distcls.recipe.tracking import Tracking
from distcls.tracking.labels import run_labels


@pytest.mark.parametrize(
    ("slurm", "name", "group"),
    [
        ({}, "r50", "r50"),
        ({"job_id": "77"}, "r50-77", "r50"),
        ({"job_id": "80", "array_job_id": "78", "array_task_id": "2"}, "r50-78_2", "r50-78"),
    ],
)
def test_names_and_groups_come_from_the_first_attempts_job(slurm, name, group):
    labels = run_labels("r50", Tracking().model_dump(), slurm)
    assert (labels["name"], labels["group"]) == (name, group)


def test_what_the_recipe_says_comes_first():
    tracking = Tracking(project="p", entity="lab", name="mine", group="ours", tags=["a"], notes="n")
    assert run_labels("r50", tracking.model_dump(), {"job_id": "77"}) == {
        "project": "p",
        "entity": "lab",
        "name": "mine",
        "group": "ours",
        "tags": ["a"],
        "notes": "n",
    }
