"""`distcls report`: one or several runs as one HTML file."""

import time
from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders; several are compared with each other.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. Default: RUN/report.html.")
    ] = None,
    watch: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="SECONDS", help="Redraw at this interval while the run is training; the page reloads itself."
        ),
    ] = None,
) -> None:
    """Write an HTML report of one run, or a comparison of several, finished or still training."""
    from distcls.tracking.report import write_report

    if output is None:
        if len(runs) > 1:
            raise UserError("several runs: say with -o FILE where their comparison goes")
        output = runs[0] / "report.html"
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
    going_on = watch is not None and _any_runs(runs)
    write_report(runs, output, reload_s=watch if going_on else None)
    print(output, flush=True)
    while going_on and watch is not None:
        time.sleep(watch)
        going_on = _any_runs(runs)
        write_report(runs, output, reload_s=watch if going_on else None)


def _any_runs(runs: list[Path]) -> bool:
    from distcls.tracking.run_record import read_run

    return any(read_run(run).status == "running" for run in runs)
