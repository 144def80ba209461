"""Converts a data set to several .beton files, one by one, and continues after an interruption."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distcls.data.beton.file_format import read_samples
from distcls.data.beton.shard_names import shard_of, shard_paths
from distcls.data.beton.sidecar import Sidecar, read_sidecar
from distcls.data.converting.convert import check_target, convert, report_path, versions
from distcls.data.converting.encoding import Encoding
from distcls.data.converting.sources import Source
from distcls.data.converting.subset import Subset
from distcls.data.converting.target import replace, temporary
from distcls.data.errors import DataError
from distcls.data.sampling.order import permutation


def convert_shards(
    source: Source,
    out: Path,
    *,
    shards: int,
    shuffle: bool = False,
    workers: int | None = None,
    on_error: str = "stop",
    origin: str = "",
    progress: Callable[[int], None] = lambda done: None,
    **encoding: Any,
) -> list[Sidecar]:
    """Write `source` to OUT-00000-of-00008.beton and so on, in equal, contiguous parts.

    Existing shards are verified and kept, so an interrupted conversion continues when it is started again.

    Args:
        source, workers, on_error, origin, progress, encoding: as in `convert`; OUT.report.json lists the skipped images
            of all shards.
        out: OUT.beton.
        shards: number of files.
        shuffle: write the images in a random order, the same each time.

    Raises:
        DataError: as in `convert`; or an existing shard is damaged or belongs to another conversion.
    """
    check_target(out, on_error)
    if not 0 < shards <= len(source):
        raise DataError(f"--shards: got {shards}, expected 1..{len(source)}, the number of images")
    paths = shard_paths(out, shards)
    _refuse_others(out, paths)
    order = permutation(len(source), 0, 0) if shuffle else np.arange(len(source))
    placement = {"shards": shards} | ({"shuffle_seed": 0} if shuffle else {})
    done, sidecars = 0, []
    with temporary(out):  # only for its lock
        for number, (path, indices) in enumerate(zip(paths, np.array_split(order, shards), strict=True)):
            part = Subset(source, indices)
            mine = {"shard": number, **placement}
            if path.exists():
                sidecars.append(_verified(path, part, {**Encoding(**encoding).described(part), **mine}))
            else:
                before = done
                try:
                    sidecar = convert(
                        part,
                        path,
                        workers=workers,
                        on_error=on_error,
                        origin=origin,
                        placement=mine,
                        progress=lambda more, before=before: progress(before + more),  # type: ignore[misc]
                        **encoding,
                    )
                except DataError as error:
                    kept = f"{len(sidecars)} of {shards} shards are whole and stay"
                    raise DataError(f"{error} ({kept}: the same command goes on from there.)") from error
                sidecars.append(sidecar)
            done += len(part)
            progress(done)
        if on_error == "skip":
            _report(out, paths, len(source), origin)
    return sidecars


def shards_for(source: Source, shard_bytes: int, **encoding: Any) -> int:
    """Number of shards of about `shard_bytes` each, estimated from the stored size of up to 200 images."""
    return max(1, min(len(source), round(len(source) * Encoding(**encoding).bytes_per_image(source) / shard_bytes)))


def _refuse_others(out: Path, paths: list[Path]) -> None:
    """Refuse shards of another conversion in the folder: a pattern such as train-*.beton would match them, too."""
    for other in sorted(out.parent.glob(f"{out.stem}-*-of-*.beton")):
        if other not in paths and shard_of(other):
            raise DataError(
                f"{other}: lies where {paths[0].name} and so on are to be written, but is a shard of another "
                "conversion: move it away, give another name, or go on with its number of --shards"
            )


def _verified(path: Path, part: Subset, write: dict[str, int | float | str | None]) -> Sidecar:
    """The sidecar of an existing shard, once its images, options, versions and bytes are verified.

    Raises:
        DataError: the shard was written from other images or with other options, or its bytes have changed.
    """
    file, table = read_samples(path)
    sidecar = read_sidecar(path)
    made_by = {name: number for name, number in versions().items() if name != "distcls"}
    now = {**write, "images": part.fingerprint(), "classes": part.class_names, **made_by}
    then = {**sidecar.write, "images": sidecar.source.get("fingerprint"), "classes": sidecar.class_names}
    then |= sidecar.versions
    for key, value in now.items():
        if then.get(key) != value:
            raise DataError(
                f"{path}: was written with other {key}: {_short(then.get(key))} there, {_short(value)} now. Move it "
                "away, or convert with what it was written with"
            )
    if sidecar.samples != len(table) or hashlib.sha256(file.data).hexdigest() != sidecar.sha256:
        raise DataError(f"{path}: its bytes are not those that were written: remove it, and start this command again")
    return sidecar


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def _report(out: Path, paths: list[Path], images: int, origin: str) -> None:
    reports = [json.loads(report_path(path).read_text()) for path in paths if report_path(path).exists()]
    whole = {
        "source": origin,
        "images": images,
        "written": sum(report["written"] for report in reports),
        "skipped": [entry for report in reports for entry in report["skipped"]],
    }
    replace(report_path(out), json.dumps(whole, indent=1) + "\n")
