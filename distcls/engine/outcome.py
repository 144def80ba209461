"""How a run ended, for whoever started it. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from distcls.engine.exit_codes import PREEMPTED


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `status` is "finished", "already finished" or "preempted"; `last` and `best` are evaluations."""

    status: str
    folder: Path
    last: dict[str, float]
    best: dict[str, float]

    @property
    def exit_code(self) -> int:
        """Of the process; when preempted, start the same command again to go on."""
        return PREEMPTED if self.status == "preempted" else 0
