"""`distcls data describe`: a sidecar for a .beton that has none."""

import os
from pathlib import Path
from typing import Annotated

import typer

from distcls.cli.progress import progress_bar


def describe(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A .beton with an RGB image and an int label, e.g. of ffcv-imagenet.")
    ],
    class_names: Annotated[
        Path,
        typer.Option(help="Class names in the order of the labels: one per line, or a JSON list.", show_default=False),
    ],
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label",
            help="The file has several labels per image, as bits of int fields, as `convert` writes them.",
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. Default: the number of available cores.")] = None,
) -> None:
    """Write the missing sidecar (class names, statistics, fingerprint) of a .beton from another program."""
    from distcls.data.beton.file_format import read_samples
    from distcls.data.beton.sidecar import sidecar_path
    from distcls.data.class_names import read_class_names
    from distcls.data.inspecting.describe import describe as run

    names = read_class_names(class_names)
    total = len(read_samples(path)[1])
    with progress_bar(total, path.name) as progress:
        cores = workers or len(os.sched_getaffinity(0))
        sidecar = run(path, names, multi_label=multi_label, workers=cores, progress=progress)
    print(f"{sidecar_path(path)}: {sidecar.samples} images, {len(names)} classes")
