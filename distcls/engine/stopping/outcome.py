"""How a run ended, for whoever started it; batch scripts go by the exit codes. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

# 0 and 1 mean what they always do.
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: saved, start me again
NO_VALID_CHECKPOINT = 76  # fail, and do not start again


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
