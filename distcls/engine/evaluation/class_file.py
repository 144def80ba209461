"""`val_per_class.json` of the run folder: what `eval.metrics` found in the last evaluation, class by class."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distcls.engine.job import Job
from distcls.engine.records.durable_file import replace_file
from distcls.tracking.jsonl import strict

FILE = "val_per_class.json"


def record_classes(job: Job, folder: Path, step: int, means: Mapping[str, float]) -> None:
    """Write the file, on rank 0, and show the run's last one to the trackers; a run does not fail for it.

    Args:
        means: of the evaluation.
    """
    if job.metrics is None or job.rank != 0:
        return
    path = folder / FILE
    try:
        replace_file(path, encoded({"step": step, **means, **job.metrics.per_class}))
    except OSError as error:
        job.trackers.warn(f"{path} cannot be written: {error.strerror}")
    if step >= job.total_steps:
        job.trackers.event("val_per_class", step=step, path=str(path))


def encoded(content: Mapping[str, Any]) -> bytes:
    """Strict JSON with a line for each class and each row of the confusion matrix: of 1,000 classes 2 MB."""
    entries = [f"{json.dumps(key)}: {_lines(value)}" for key, value in strict(content).items()]
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def _lines(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in value) + "\n]"
