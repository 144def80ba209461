"""`distcls data describe`: a sidecar for a .beton that has none."""

import os
from pathlib import Path
from typing import Annotated

import typer

from distcls.cli.progress import progress_bar


def describe(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A .beton with an RGB image and an int label, e.g. ffcv-imagenet's.")
    ],
    class_names: Annotated[
        Path, typer.Option(help="The names in the labels' order: one a line, or a JSON list.", show_default=False)
    ],
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Its int fields hold one bit per class, as `convert` writes them.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads. Default: the cores this process may use.")
    ] = None,
) -> None:
    """Write the sidecar (class names, statistics, fingerprint) of a .beton that another program wrote."""
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
