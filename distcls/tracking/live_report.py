"""Redraws report.html after evaluations while the run continues."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distcls.tracking.report import write_report
from distcls.tracking.tracker import Row, Status

PAUSE = 60.0  # least seconds between two pages; one takes some 0.1 s to draw, with 100,000 rows 5 s
SHARE = 0.01  # largest share of the time


class LiveReport:
    """Draws `report.html` after an evaluation, at most every `PAUSE` seconds. Browsers that show it reload it.

    Training waits for the drawing, so a long run does it less often. The final page is not drawn here: it says how the
    run ended, which is known only after all backends have closed.
    """

    def __init__(self, run_folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_folder = run_folder
        self._clock = clock
        self._drawn, self._pause = clock(), PAUSE

    def log(self, row: Row) -> None:
        began = self._clock()
        if "val/loss" in row and began - self._drawn >= self._pause:
            write_report([self.run_folder], self.run_folder / "report.html", reload_s=round(PAUSE))
            self._drawn = self._clock()
            self._pause = max(PAUSE, (self._drawn - began) / SHARE)

    def event(self, kind: str, **fields: Any) -> None:
        pass

    def finish(self, status: Status, message: str | None = None) -> None:
        pass
