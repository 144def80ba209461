"""`distcls data check`: every image of a .beton, or of two."""

import os
from pathlib import Path
from typing import Annotated

import typer

from distcls.cli.progress import progress_bar


def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .beton file.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="OTHER", help="A second file, which must not share images with the first.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. Default: the number of available cores.")] = None,
) -> None:
    """Check structure, sidecar, labels and every image, and the images that two files share.

    Exit status 1 on a fault.
    """
    from distcls.data.inspecting.check import FileCheck, Finding

    def show(title: str, findings: list[Finding]) -> None:
        print(title)
        for finding in findings:
            print(f"  {finding.level:5}  {finding.text}")

    checks = [FileCheck(file) for file in (path, other) if file is not None]
    for checked in checks:
        with progress_bar(checked.images, checked.path.name) as progress:
            if checked.images:
                checked.decode(workers or len(os.sched_getaffinity(0)), progress)
        show(str(checked.path), checked.findings)
    faulty = any(checked.faulty for checked in checks)
    if len(checks) == 2:
        shared = checks[0].compare(checks[1])
        show(f"{path} and {other}", shared)
        faulty = faulty or any(finding.level == "FAULT" for finding in shared)
    if faulty:
        raise typer.Exit(1)
