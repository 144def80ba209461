"""Converts images to one OUT.beton with its sidecar OUT.json."""

import contextlib
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from distcls.data.beton.file_format import JPEG, read_samples, read_words
from distcls.data.beton.multi_hot import unpack, words_for
from distcls.data.beton.sidecar import Sidecar, Sizes, deviation, fingerprint_of, sidecar_path
from distcls.data.converting.encoding import Encoding
from distcls.data.converting.sources import Source
from distcls.data.converting.subset import Subset
from distcls.data.converting.target import replace, temporary
from distcls.data.errors import DataError

ON_ERROR = ("stop", "skip")
_LARGE_PAGE = 1 << 28
_READERS, _TOGETHER = 8, 256  # threads that read file headers (I/O bound), and files per task


def convert(
    source: Source,
    out: Path,
    *,
    workers: int | None = None,
    on_error: str = "stop",
    origin: str = "",
    placement: Mapping[str, int] = MappingProxyType({}),
    progress: Callable[[int], None] = lambda done: None,
    **encoding: Any,
) -> Sidecar:
    """Write `out` and its sidecar; neither appears, or replaces an existing file, before both are complete.

    Args:
        source: the images.
        out: the .beton to write.
        workers: processes; default: the cores available to this process.
        on_error: what to do with an image that cannot be read or stored: "stop", or "skip" and list it in
            OUT.report.json.
        origin: path of the source, recorded in the sidecar.
        placement: which part of the source this is, recorded in the sidecar.
        progress: called now and then with the number of images done.
        encoding: how images are stored: arguments of Encoding.

    Returns:
        The sidecar.

    Raises:
        DataError: an image cannot be read (the message names it), `out` cannot be written or is being written by
            another process, or another JSON file is in the sidecar's place.
    """
    from distcls.data.converting.writer import BetonWriter, Recorder

    stored = Encoding(**encoding)
    check_target(out, on_error)
    refuse_foreign(sidecar_path(out))
    moments = np.frombuffer(mmap.mmap(-1, len(source) * 6 * 4), np.float32).reshape(-1, 2, 3)
    try:
        with temporary(out) as (path, file):
            words = words_for(len(source.class_names)) if source.multi_label else 1
            skip = on_error == "skip"
            cores = workers or len(os.sched_getaffinity(0))
            writer = BetonWriter(file, stored.field(source), words, cores, skip=skip, progress=progress)
            writer.write(Recorder(source, moments), _page_size(source, stored.max_resolution, skip))
            kept = np.ones(len(source), bool)
            kept[[index for index, _ in writer.skipped]] = False
            sidecar = _describe(
                path,
                source,
                moments[kept],
                origin=origin,
                write={
                    **stored.described(source),
                    **placement,
                    "skipped": len(writer.skipped) if skip else None,
                },
            )
            os.fsync(file)
            if skip:
                skipped = [{"image": source.name_of(index), "error": text} for index, text in writer.skipped]
                report = {"source": origin, "images": len(source), "written": sidecar.samples, "skipped": skipped}
                replace(report_path(out), json.dumps(report, indent=1) + "\n")
            # A crash between the two leaves a sidecar that does not match the .beton, which the reader detects.
            replace(sidecar_path(out), sidecar.model_dump_json(indent=1) + "\n")
            path.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}. It is as it was before.") from error
    return sidecar


def report_path(out: Path) -> Path:
    """train.beton -> train.report.json."""
    return out.with_suffix(".report.json")


def check_target(out: Path, on_error: str) -> None:
    """Check what can be checked before the conversion starts, and create the output folder.

    Raises:
        DataError: not a .beton name, a folder, a folder that cannot be created, or an unknown `on_error`.
    """
    if out.suffix != ".beton":
        raise DataError(f"{out}: expected a name that ends in .beton")
    if on_error not in ON_ERROR:
        raise DataError(f"--on-error: got {on_error!r}, expected one of {', '.join(ON_ERROR)}")
    if out.is_dir():
        raise DataError(f"{out}: is a folder, expected the name of the file to write")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from error


def refuse_foreign(sidecar: Path) -> None:
    """Refuse to overwrite a JSON file of the same name that is not a sidecar, such as a data set's annotations."""
    if not sidecar.exists():
        return
    content = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(sidecar.read_bytes()) if sidecar.is_file() else None
    if not isinstance(content, dict) or "fingerprint" not in content:
        raise DataError(
            f"{sidecar}: is there, and no sidecar that may be written over: move it away, or give another name than "
            f"{sidecar.stem}.beton"
        )


def _page_size(source: Source, max_resolution: int | None, skip: bool) -> int:
    """Page size in bytes: a power of two that holds the largest image, at least FFCV's default of 2 MiB.

    If the bound from max_resolution would give large pages, and with them a large file, the images' actual sizes are
    read. The header stores the page size in 32 bits; the writer reports an image that is larger than a page.
    """
    most = (max_resolution or 1 << 16) ** 2
    pixels = most if 3 * most <= _LARGE_PAGE else min(_largest(source, skip), most)
    return min(max(1 << 21, 1 << (3 * pixels - 1).bit_length()), 1 << 31)


def _largest(source: Source, skip: bool) -> int:
    """Pixels of the largest image; with `skip`, images whose size cannot be read are ignored."""

    def largest_of(first: int) -> int:
        largest = 1
        for index in range(first, min(first + _TOGETHER, len(source))):
            try:
                largest = max(largest, source.pixels_of(index))
            except DataError:
                if not skip:
                    raise
        return largest

    with _headers_alone(), ThreadPoolExecutor(_READERS) as threads:
        return max(threads.map(largest_of, range(0, len(source), _TOGETHER)))


@contextlib.contextmanager
def _headers_alone() -> Iterator[None]:
    """Disable Pillow's Image.convert, and with it decoding, while image sizes are read.

    torchvision's data sets call it on every image they open; decoding a whole set for its sizes would take hours.
    """
    decoding = Image.Image.convert
    Image.Image.convert = lambda image, *_, **__: image  # type: ignore[method-assign]
    try:
        yield
    finally:
        Image.Image.convert = decoding  # type: ignore[method-assign]


def _describe(
    beton: Path, source: Source, moments: np.ndarray, *, origin: str, write: dict[str, int | float | str | None]
) -> Sidecar:
    """Build the sidecar by reading the written file back, which also checks it."""
    file, table = read_samples(beton)
    classes = len(source.class_names)
    if source.multi_label:
        counts = unpack(read_words(beton, file), classes).sum(axis=0, dtype=np.int64)
    else:
        counts = np.bincount(table["label"], minlength=classes)
    mean, square = moments.astype(np.float64).mean(0)
    return Sidecar(
        fingerprint=fingerprint_of(file, int(table["address"].min()) - file.ctypes.data),
        samples=len(table),
        class_names=source.class_names,
        class_counts=counts.tolist(),
        multi_label=source.multi_label,
        mean=mean.tolist(),
        std=deviation(mean, square),
        sizes=Sizes.of(table),
        bytes=len(file),
        sha256=hashlib.sha256(file.data).hexdigest(),
        jpeg_samples=int((table["mode"] == JPEG).sum()),
        write=write,
        source={
            "path": origin,
            "kind": type(source.source if isinstance(source, Subset) else source).__name__,
            "fingerprint": source.fingerprint(),
        },
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of distcls and of the packages that determine the bytes of a .beton."""
    return {package: version(package) for package in ("distcls", "ffcv", "pillow", "opencv-python") if _has(package)}


def _has(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
