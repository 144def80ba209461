"""Writes `val_per_class.json` in the run folder: the `eval.metrics` of the last evaluation for each class."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distcls.engine.records.durable_file import replace_file
from distcls.tracking.jsonl import strict
from distcls.tracking.trackers import Trackers

FILE = "val_per_class.json"


def record_classes(folder: Path, step: int, found: Mapping[str, Any], trackers: Trackers, *, last: bool) -> None:
    """Write the file, and pass the last one of a run to the trackers; an error is only warned about.

    Args:
        folder: of the run.
        found: means and per-class rows of the evaluation.
    """
    path = folder / FILE
    try:
        replace_file(path, encoded({"step": step, **found}))
    except OSError as error:
        trackers.warn(f"{path} cannot be written: {error.strerror}")
    if last:
        trackers.event("val_per_class", step=step, path=str(path))


def encoded(content: Mapping[str, Any]) -> bytes:
    """Strict JSON with a line for each class and each row of the confusion matrix; 2 MB for 1,000 classes."""
    entries = [f"{json.dumps(key)}: {_lines(value)}" for key, value in strict(content).items()]
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def _lines(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in value) + "\n]"
