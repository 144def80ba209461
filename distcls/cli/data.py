"""`distcls data ...`: write and describe .beton files."""

from pathlib import Path
from typing import Annotated

import typer

from distcls.cli.data_browse import browse
from distcls.cli.data_check import check
from distcls.cli.data_describe import describe
from distcls.cli.progress import progress_bar

app = typer.Typer(no_args_is_help=True, help="Write .beton files from images, and look into them.")
for command in (check, describe, browse):
    app.command()(command)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="Folder with one sub-folder per class or a known set's files, or a list.csv.")
    ],
    out: Annotated[Path, typer.Argument(help="The .beton to write; OUT.json is written beside it.")],
    source_type: Annotated[str, typer.Option(help="auto, folder, csv, fashion-mnist, mnist or torchvision.")] = "auto",
    split: Annotated[
        str | None, typer.Option(help="train, val or test; for a folder: the sub-folder of that name.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Class of torchvision.datasets, e.g. CIFAR10. Never downloads.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Of a CSV list: the folder of its paths. Default: the list's own.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="Of a CSV list: a file with a class a line, in order. Default: those listed, sorted."),
    ] = None,
    write_mode: Annotated[
        str | None, typer.Option(help="raw, jpg, proportion or smart. Default: raw for small images, else jpg.")
    ] = None,
    max_resolution: Annotated[
        int | None, typer.Option(help="Shrink larger images to this longer side, in pixels.")
    ] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality, 1..100.")] = 90,
    compress_probability: Annotated[
        float, typer.Option(help="Share stored as JPEG with --write-mode proportion.")
    ] = 0.5,
    smart_threshold: Annotated[
        int, typer.Option(help="Bytes of pixels from which on --write-mode smart uses JPEG.")
    ] = 524288,
    on_error: Annotated[
        str, typer.Option(help="At an image that cannot be read: stop, or skip it and list it in OUT.report.json.")
    ] = "stop",
    workers: Annotated[int | None, typer.Option(help="Processes. Default: the cores this process may use.")] = None,
) -> None:
    """Write a .beton and its sidecar (class names, statistics) from images on disk."""
    from distcls.data.convert import convert as run
    from distcls.data.sources import open_source

    images = open_source(source, source_type, split, dataset, image_root, classes)
    print(f"{source}: {len(images)} images in {len(images.class_names)} classes", flush=True)
    with progress_bar(len(images), out.name) as progress:
        sidecar = run(
            images,
            out,
            write_mode=write_mode,
            max_resolution=max_resolution,
            quality=quality,
            compress_probability=compress_probability,
            smart_threshold=smart_threshold,
            workers=workers,
            on_error=on_error,
            origin=str(source.resolve()),
            progress=progress,
        )
    print(f"{out}: {sidecar.samples} images, {sidecar.bytes / 2**20:.1f} MiB")
    if skipped := sidecar.write.get("skipped"):
        print(f"{skipped} images could not be read and are left out: {out.with_suffix('.report.json')}")


@app.command()
def info(path: Annotated[Path, typer.Argument(help="A .beton.")]) -> None:
    """Check a .beton's structure and print what it holds."""
    from distcls.data.dataset import BetonDataset

    dataset = BetonDataset(path)
    about = dataset.sidecar
    for name, value in (
        ("images", f"{about.samples} ({about.jpeg_samples} as JPEG), {about.bytes / 2**20:.1f} MiB"),
        ("height", "{} .. {} .. {} pixels (min, median, max)".format(*about.sizes.height)),
        ("width", "{} .. {} .. {}".format(*about.sizes.width)),
        ("mean", "{:.4f} {:.4f} {:.4f} (RGB, scale 0..1)".format(*about.mean)),
        ("std", "{:.4f} {:.4f} {:.4f}".format(*about.std)),
        ("written", ", ".join(f"{key} {value}" for key, value in about.write.items() if value is not None)),
        ("from", f"{about.source['path']} ({about.source['kind']})"),
        ("versions", ", ".join(f"{key} {value}" for key, value in about.versions.items())),
        ("fingerprint", about.fingerprint),
        ("classes", f"{dataset.num_classes}{', any number of them per image' if dataset.multi_label else ''}"),
    ):
        print(f"{name:12} {value}")
    for number, (name, count) in enumerate(zip(about.class_names, about.class_counts, strict=True)):
        print(f"{number:6}  {count:9}  {name}")
