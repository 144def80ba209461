"""`distcls report`: one or several runs as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file; default RUN/report.html.")] = None,
) -> None:
    """Draw runs, finished or running, into one HTML file that needs no network."""
    from distcls.tracking.report import render

    if output is None:
        if len(runs) > 1:
            raise UserError("several runs: say with -o FILE where their comparison goes")
        output = runs[0] / "report.html"
    output.write_text(render(runs))
    print(output)
