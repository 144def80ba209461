"""`distcls data ...`: write and describe .beton files."""

from pathlib import Path
from typing import Annotated

import typer

from distcls.cli.data_browse import browse
from distcls.cli.data_check import check
from distcls.cli.data_convert import convert
from distcls.cli.data_describe import describe

app = typer.Typer(no_args_is_help=True, help="Convert images to .beton files, check and inspect them.")
for command in (convert, check, describe, browse):
    app.command()(command)


@app.command()
def info(path: Annotated[Path, typer.Argument(metavar="PATH", help="A .beton file.")]) -> None:
    """Print structure and statistics of a .beton file."""
    from distcls.data.beton.shard_names import expanded
    from distcls.data.dataset import BetonDataset
    from distcls.errors import UserError

    if (files := expanded(path)) != [path]:
        raise UserError(f"{path}: names {len(files)} files, expected one: {files[0]}, for example")
    dataset = BetonDataset(path)
    about = dataset.sidecar
    for name, value in (
        ("images", f"{about.samples} ({about.jpeg_samples} as JPEG), {about.bytes / 2**20:.1f} MiB"),
        ("height", "{} .. {} .. {} pixels (min, median, max)".format(*about.sizes.height)),
        ("width", "{} .. {} .. {}".format(*about.sizes.width)),
        ("mean", "{:.4f} {:.4f} {:.4f} (RGB, scale 0..1)".format(*about.mean)),
        ("std", "{:.4f} {:.4f} {:.4f}".format(*about.std)),
        ("written", ", ".join(f"{key} {value}" for key, value in about.write.items() if value is not None)),
        ("from", f"{about.source.get('path')} ({about.source.get('kind')})"),
        ("versions", ", ".join(f"{key} {value}" for key, value in about.versions.items())),
        ("fingerprint", about.fingerprint),
        ("classes", f"{dataset.num_classes}{', any number of them per image' if dataset.multi_label else ''}"),
    ):
        print(f"{name:12} {value}")
    for number, (name, count) in enumerate(zip(about.class_names, about.class_counts, strict=True)):
        print(f"{number:6}  {count:9}  {name}")
