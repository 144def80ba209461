"""Decides whether two attempts belong to the same run, and which keys may change between them. Imports no torch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distcls.errors import UserError

SECTIONS = ("model", "data", "optimizer", "schedule", "train")  # must be equal for two attempts to be the same run
# May change between attempts: data sets are compared by content, not path; workers and logging do not affect the
# numbers; accumulation only changes how the global batch is split into micro-batches, and with them BatchNorm's
# statistics and dropout.
FREE = {"data.workers", "data.train.path", "data.val.path", "train.log_every_steps", "train.accumulation_steps"}
MISSING = object()


def allowed_changes(
    folder: Path,
    run: dict[str, Any],
    recipe: dict[str, Any],
    fingerprints: dict[str, str],
    allow_changes: Sequence[str],
) -> dict[str, list[Any]]:
    """Changes that would make this another run but are allowed explicitly: key -> [before, now].

    Args:
        folder: the run folder.
        run: the content of its run.json.
        recipe, fingerprints: of the new attempt.
        allow_changes: from the recipe's `checkpoint`.

    Raises:
        UserError: there is a change that is not allowed.
    """
    old = run["recipe"]
    strict = [
        (key, was, now)
        for section in SECTIONS
        for key, was, now in differences(old.get(section), recipe.get(section), section)
        if key not in FREE
    ]
    content = [
        (key if " " in key else f"{key} (content)", was, now)
        for key, was, now in differences(run["fingerprints"], fingerprints)
        if was is not MISSING  # earlier versions recorded fewer
    ]
    allowed = {
        key: plain(was, now)
        for key, was, now in strict + content
        if any(f"{key.split()[0]}.".startswith(f"{one}.") for one in allow_changes)
    }
    lines = [f"  {key}: {show(was)} there, {show(now)} here" for key, was, now in strict if key not in allowed]
    lines += [f"  {key}: {was} there, {now} here" for key, was, now in content if key not in allowed]
    if lines:
        named = dict.fromkeys(key.split()[0] for key, *_ in strict + content)
        raise UserError(
            "\n".join([f"output_dir {folder} holds the run of another recipe:", *lines])
            + "\nGive another output_dir, or put these back to go on with that run; to go on with what is here all "
            f"the same, from its last checkpoint on: checkpoint.allow_changes=[{','.join(named)}]"
        )
    return allowed


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted keys in which two nested mappings differ, with both values; MISSING where a side lacks the key."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name, MISSING), new.get(name, MISSING), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


def show(value: Any) -> str:
    """A value as messages show it."""
    return "not set" if value is MISSING else json.dumps(value)


def plain(*values: Any) -> list[Any]:
    """The values for JSON, with None for MISSING."""
    return [None if value is MISSING else value for value in values]
