"""Reads a run from its folder: rows, attempts, restarts, recipe; whether it is running, was killed or has ended."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from distcls.errors import UserError
from distcls.tracking.jsonl import METRICS, read_events, read_lines, read_rows
from distcls.tracking.redact import redact, redact_text

AXES = ("samples", "epoch", "elapsed", "step")


@dataclass(frozen=True)
class Restart:
    """Where a later attempt resumed.

    Attributes:
        attempt: its number.
        after: how the attempt before it ended: ``preempted``, ``killed``, ``failed``.
        position: step, samples, epoch of the checkpoint; and `elapsed` seconds of training until then.
    """

    attempt: int
    after: str
    position: Mapping[str, float]


@dataclass(frozen=True)
class RunRecord:
    """What a report needs of a run, without secrets, since reports are meant to be shared.

    Attributes:
        rows: see `read_rows`; each with `elapsed`, the working time of all attempts until then in seconds, without the
            time between them.
        attempts: of `run.json`, in order.
        recipe_text: `recipe.yaml`.
        recipe: dotted key -> value as written there.
    """

    folder: Path
    name: str
    run_id: str
    status: str
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    restarts: list[Restart]
    recipe_text: str
    recipe: dict[str, str]

    def of_kind(self, group: str) -> list[dict[str, Any]]:
        """The rows with metrics of a group, e.g. ``val``."""
        return [row for row in self.rows if any(name.startswith(f"{group}/") for name in row)]

    @property
    def total_epochs(self) -> float | None:
        """`train.epochs`, if the recipe has it."""
        try:
            return float(self.recipe["train.epochs"])
        except (KeyError, ValueError):
            return None


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        UserError: it is not one, or its `run.json` or `recipe.yaml` is damaged.
    """
    run_file, recipe_file = folder / "run.json", folder / "recipe.yaml"
    if not run_file.exists() and not (folder / METRICS).exists():
        raise UserError(f"{folder} is not a run folder: it has neither run.json nor {METRICS}")
    run = redact(json_of(run_file)) if run_file.exists() else {}
    try:
        text = recipe_file.read_text(encoding="utf-8") if recipe_file.exists() else ""
        recipe = dict(flatten(redact(yaml.load(text, Loader=yaml.BaseLoader) or {})))
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(recipe_file, error) from error
    rows, events = read_rows(folder), redact(read_events(folder))
    spans = _working_hours(run.get("attempts", []), [*read_lines(folder / METRICS), *events])
    for row in rows:
        row["elapsed"] = _elapsed(spans, row["attempt"], row["time"])
    return RunRecord(
        folder=folder,
        name=recipe.get("name") or folder.resolve().name,
        run_id=run.get("run_id", ""),
        status=run.get("status", "unknown"),
        rows=rows,
        events=events,
        attempts=run.get("attempts", []),
        restarts=list(_restarts(rows, events, run.get("attempts", []), spans)),
        recipe_text=redact_text(text),
        recipe=recipe,
    )


def json_of(file: Path) -> dict[str, Any]:
    """What one of a run folder's files holds.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got a {type(content).__name__}")
    except ValueError as error:
        raise _damaged(file, error) from error
    return content


def _damaged(file: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0]
    return UserError(f"{file} is damaged ({reason}): mend it, copy it again, or move it away")


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of every leaf; a list of scalars is one leaf."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from flatten(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from flatten(item, f"{key}.{index}")
    elif key:
        yield key, f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value or "")


def _working_hours(attempts: list[dict[str, Any]], lines: list[dict[str, Any]]) -> dict[int, tuple[float, float]]:
    """Start and end of each attempt, in seconds since 1970; a killed attempt ends with its last line."""
    times: dict[int, list[float]] = {}
    for line in lines:
        times.setdefault(line["attempt"], []).append(line["time"])
    for number, attempt in enumerate(attempts, 1):
        if number in times and "started" in attempt:
            times[number].append(datetime.fromisoformat(attempt["started"]).timestamp())
    return {number: (min(found), max(found)) for number, found in sorted(times.items())}


def _elapsed(spans: dict[int, tuple[float, float]], attempt: int, time: float) -> float:
    before = sum(end - start for number, (start, end) in spans.items() if number < attempt)
    return before + time - spans[attempt][0]


def _restarts(
    rows: list[dict[str, Any]],
    events: list[dict[str, Any]],
    attempts: list[dict[str, Any]],
    spans: dict[int, tuple[float, float]],
) -> Iterator[Restart]:
    resumed = {event["attempt"]: event for event in events if event["kind"] == "resumed"}
    for number in spans:
        steps = [row["step"] for row in rows if row["attempt"] == number]
        if number == 1 or (number not in resumed and not steps):  # it failed before it could resume
            continue
        event = resumed.get(number, {})
        step = event.get("step", min(steps, default=0))
        # Steps are of one size, but where the batch was allowed to change: there the event has the samples.
        position = {axis: step * rows[-1][axis] / max(rows[-1]["step"], 1) if rows else 0 for axis in AXES}
        position["samples"] = event.get("samples", position["samples"])
        position["elapsed"] = _elapsed(spans, number, spans[number][0])
        after = attempts[number - 2].get("status", "unknown") if number - 2 < len(attempts) else "unknown"
        yield Restart(number, after, position)
