"""`distcls data convert`: images on disk become .beton files."""

import re
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from distcls.cli.progress import progress_bar
from distcls.errors import UserError


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Folder with one sub-folder per class, folder of a known data set, or a list (.csv or .txt).",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .beton to write; OUT.json is written next to it.")],
    source_type: Annotated[
        str, typer.Option(help="Format of SOURCE: auto, folder, csv, list, fashion-mnist, mnist or torchvision.")
    ] = "auto",
    split: Annotated[
        str | None, typer.Option(help="train, val or test. Of a folder: its sub-folder of that name.")
    ] = None,
    val_share: Annotated[
        float | None,
        typer.Option(help="Hold out this share of SOURCE for validation; --split train or val selects what to write."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Class of torchvision.datasets, e.g. CIFAR10. Nothing is downloaded.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder to which the paths of a list are relative. Default: the list's folder.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with one class name per line, in order, for a list. Default: the list's names, sorted."
        ),
    ] = None,
    write_mode: Annotated[
        str | None, typer.Option(help="raw, jpg, proportion or smart. Default: raw for small images, otherwise jpg.")
    ] = None,
    max_resolution: Annotated[
        int | None, typer.Option(help="Shrink larger images so that the longer side has this many pixels.")
    ] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality, 1..100.")] = 90,
    compress_probability: Annotated[
        float, typer.Option(help="Share of images stored as JPEG, with --write-mode proportion.")
    ] = 0.5,
    smart_threshold: Annotated[
        int, typer.Option(help="Store images with more bytes of pixels than this as JPEG, with --write-mode smart.")
    ] = 524288,
    on_error: Annotated[
        str,
        typer.Option(help="If an image cannot be read or stored: stop, or skip it and list it in OUT.report.json."),
    ] = "stop",
    shards: Annotated[
        int | None,
        typer.Option(help="Number of files to write: OUT-00000-of-N.beton and so on. A restart keeps finished ones."),
    ] = None,
    shard_size: Annotated[
        str | None, typer.Option(help="Instead of --shards: approximate size of a shard, e.g. 2GiB.")
    ] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Write the images in a random, reproducible order.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: the number of available cores.")
    ] = None,
) -> None:
    """Convert images to a .beton file and its sidecar (class names, statistics)."""
    from distcls.data.converting.convert import convert as to_file
    from distcls.data.converting.held_out import part_of
    from distcls.data.converting.image_files import printable
    from distcls.data.converting.shards import convert_shards, shards_for
    from distcls.data.converting.sources import Source, open_source
    from distcls.data.converting.subset import Subset
    from distcls.data.sampling.order import permutation

    if shards is not None and shard_size is not None:
        raise UserError("--shards and --shard-size: expected one of them")
    size = None if shard_size is None else bytes_of(shard_size)
    # Of images that are merely large, and of what is in them beside the pixels.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    origin = printable(source.resolve())
    if val_share is None:
        images: Source = open_source(source, source_type, split, dataset, image_root, classes)
    else:
        whole = open_source(source, source_type, None, dataset, image_root, classes)
        images = part_of(whole, split, val_share)
        origin += f" --split {split} --val-share {val_share:g}"
    print(f"{source}: {len(images)} images in {len(images.class_names)} classes", flush=True)
    encoding: dict[str, Any] = {
        "write_mode": write_mode,
        "max_resolution": max_resolution,
        "quality": quality,
        "compress_probability": compress_probability,
        "smart_threshold": smart_threshold,
    }
    if size is not None:
        shards = shards_for(images, size, **encoding)
        print(f"--shards {shards}, for about {shard_size} each", flush=True)
    with progress_bar(len(images), out.name) as progress:
        common: dict[str, Any] = {
            "workers": workers,
            "on_error": on_error,
            "origin": origin,
            "progress": progress,
        }
        if shards is not None:
            written = convert_shards(images, out, shards=shards, shuffle=shuffle, **common, **encoding)
        else:
            if shuffle:
                images = Subset(images, permutation(len(images), 0, 0))
                common["placement"] = {"shuffle_seed": 0}
            written = [to_file(images, out, **common, **encoding)]
    name = out if shards is None else f"{out.with_suffix('')}-*-of-{shards:05d}.beton"
    number, total = (sum(getattr(sidecar, of) for sidecar in written) for of in ("samples", "bytes"))
    print(f"{name}: {number} images, {total / 2**20:.1f} MiB")
    if skipped := sum(int(sidecar.write.get("skipped") or 0) for sidecar in written):
        print(f"{skipped} images could not be read or stored and are left out: {out.with_suffix('.report.json')}")


def bytes_of(size: str) -> int:
    """2GiB, 500MB or 123456 -> bytes.

    Raises:
        UserError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kMGT]?)(i?)B?", size)
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** " kMGT".index(found[2] or " ")) if found else 0
    if not count:
        raise UserError(f"--shard-size: got {size!r}, expected bytes such as 2GiB, 500MB or 1000000")
    return count
