"""How a run ended, for its caller; batch scripts read the exit codes. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

# Besides 0 for success and 1 for an error:
PREEMPTED = 75  # EX_TEMPFAIL in sysexits.h: saved, to be started again
NO_VALID_CHECKPOINT = 76  # failed, and must not be started again


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `status` is "finished", "already finished" or "preempted"; `last` and `best` are evaluations."""

    status: str
    folder: Path
    last: dict[str, float]
    best: dict[str, float]

    @property
    def exit_code(self) -> int:
        """The exit status of the process; PREEMPTED means that the same command resumes the run."""
        return PREEMPTED if self.status == "preempted" else 0
