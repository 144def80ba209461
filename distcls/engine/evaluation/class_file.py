"""`val_per_class.json` of the run folder: what `eval.metrics` found in the last evaluation, class by class."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distcls.engine.records.durable_file import replace_file
from distcls.tracking.jsonl import strict
from distcls.tracking.trackers import Trackers

FILE = "val_per_class.json"


def record_classes(folder: Path, step: int, found: Mapping[str, Any], trackers: Trackers, *, last: bool) -> None:
    """Write the file, and show the run's last one to the trackers; a run does not fail for it.

    Args:
        folder: the run's.
        found: means and rows of the evaluation.
    """
    path = folder / FILE
    try:
        replace_file(path, encoded({"step": step, **found}))
    except OSError as error:
        trackers.warn(f"{path} cannot be written: {error.strerror}")
    if last:
        trackers.event("val_per_class", step=step, path=str(path))


def encoded(content: Mapping[str, Any]) -> bytes:
    """Strict JSON with a line for each class and each row of the confusion matrix: of 1,000 classes 2 MB."""
    entries = [f"{json.dumps(key)}: {_lines(value)}" for key, value in strict(content).items()]
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def _lines(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in value) + "\n]"
