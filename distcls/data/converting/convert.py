"""Images on disk -> OUT.beton and OUT.json."""

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
_READERS, _TOGETHER = 8, 256  # threads that wait for files' headers, and how many each takes at once


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
    """Write `out` and its sidecar; until both are whole neither name exists (or keeps what it held).

    Args:
        source: the images.
        out: the .beton to write.
        workers: processes; default: the cores this process may use.
        on_error: at an image that cannot be read, or not be stored, stop, or skip it; those skipped are listed in
            OUT.report.json.
        origin: where the source lies, for the sidecar.
        placement: what part of the source this is, for the sidecar.
        progress: called now and then with the number of images done.
        encoding: how images are stored: arguments of Encoding.

    Returns:
        The sidecar.

    Raises:
        DataError: an image is unreadable (the text names it), `out` cannot be written, or is being written by another
            process; in the sidecar's place lies something else.
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
            # A crash between the two leaves a sidecar that does not fit the .beton, which the reader notices.
            replace(sidecar_path(out), sidecar.model_dump_json(indent=1) + "\n")
            path.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}. It is as it was before.") from error
    return sidecar


def report_path(out: Path) -> Path:
    """train.beton -> train.report.json."""
    return out.with_suffix(".report.json")


def check_target(out: Path, on_error: str) -> None:
    """What can be known before the work begins; and makes the folder."""
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
    """A JSON file of the same name, such as a data set's annotations, must not be lost to a sidecar."""
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
    """Bytes of the file's pages: a power of two that holds the largest image; 2 MiB at least, as FFCV has them.

    Where max_resolution alone would make them large, and the file with them, the images are asked. The header has 32
    bits for it: of an image that is larger still the writer says so.
    """
    most = (max_resolution or 1 << 16) ** 2
    pixels = most if 3 * most <= _LARGE_PAGE else min(_largest(source, skip), most)
    return min(max(1 << 21, 1 << (3 * pixels - 1).bit_length()), 1 << 31)


def _largest(source: Source, skip: bool) -> int:
    """Pixels of the largest image; with `skip` of those whose size can be read."""

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
    """Meanwhile Pillow decodes no image that is converted: torchvision's sets convert each as they open it, and to
    decode a whole set for the sizes in its files' headers takes hours."""
    decoding = Image.Image.convert
    Image.Image.convert = lambda image, *_, **__: image  # type: ignore[method-assign]
    try:
        yield
    finally:
        Image.Image.convert = decoding  # type: ignore[method-assign]


def _describe(
    beton: Path, source: Source, moments: np.ndarray, *, origin: str, write: dict[str, int | float | str | None]
) -> Sidecar:
    """Read what was written: this also checks it."""
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
    """Of what makes the bytes of a .beton, and of distcls."""
    return {package: version(package) for package in ("distcls", "ffcv", "pillow", "opencv-python") if _has(package)}


def _has(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
