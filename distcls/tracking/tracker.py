"""The interface of tracking backends."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

Row = Mapping[str, Any]
Status = Literal["finished", "preempted", "failed"]


class Tracker(Protocol):
    """A backend. It may raise: `Trackers` then warns once and goes on without it."""

    def log(self, row: Row) -> None:
        """One row: `step`, `epoch`, `samples` and metrics by name (``train/loss``, ``val/top1`` as fractions)."""

    def event(self, kind: str, **fields: Any) -> None:
        """An event such as ``resumed``, ``preempted`` or ``checkpoint``."""

    # Optional: `predictions(row, content)`, see `Trackers.predictions`.

    def finish(self, status: Status, message: str | None = None) -> None:
        """The last call. `message` says why a run was preempted or failed."""


def kind_of(row: Row) -> str:
    """``train``, ``val`` or the first group of a row; distinguishes training and evaluation rows of the same step."""
    groups = {name.split("/")[0] for name in row if "/" in name}
    return next((kind for kind in ("train", "val") if kind in groups), min(groups, default=""))
