"""Images on disk -> OUT.beton and OUT.json."""

import mmap
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from distcls.data.beton import JPEG, read_samples, read_words
from distcls.data.errors import DataError
from distcls.data.multi_hot import unpack, words_for
from distcls.data.sidecar import Sidecar, Sizes, fingerprint_of, sidecar_path
from distcls.data.sources import Source

WRITE_MODES = ("raw", "jpg", "proportion", "smart")


def convert(
    source: Source,
    out: Path,
    *,
    write_mode: str | None = None,
    max_resolution: int | None = None,
    quality: int = 90,
    compress_probability: float = 0.5,
    smart_threshold: int = 512 * 1024,
    workers: int | None = None,
    origin: str = "",
    progress: Callable[[int], None] = lambda done: None,
) -> Sidecar:
    """Write `out` and its sidecar; until both are whole neither name exists (or keeps what it held).

    Args:
        source: the images.
        out: the .beton to write.
        write_mode: raw pixels, jpg, a random proportion as jpg, or smart: jpg from `smart_threshold` bytes of pixels
        on.
            Default: raw for small images, else jpg.
        max_resolution: larger images are shrunk to this longer side in pixels.
        quality: of JPEG, 1..100.
        compress_probability: for write mode proportion.
        smart_threshold: for write mode smart.
        workers: processes; default: the cores this process may use.
        origin: where the source lies, for the sidecar.
        progress: called now and then with the number of images done.

    Returns:
        The sidecar.

    Raises:
        DataError: an image is unreadable (the text names it), or `out` cannot be written.
    """
    from ffcv.fields import RGBImageField

    from distcls.data.writer import BetonWriter, Recorder

    _check(out, write_mode, max_resolution, quality, compress_probability)
    write_mode = write_mode or ("raw" if source.small else "jpg")
    moments = np.frombuffer(mmap.mmap(-1, len(source) * 6 * 4), np.float32).reshape(-1, 2, 3)
    field = RGBImageField(
        write_mode=write_mode,
        max_resolution=max_resolution,
        smart_threshold=smart_threshold,
        jpeg_quality=quality,
        compress_probability=compress_probability,
    )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        words = words_for(len(source.class_names)) if source.multi_label else 1
        writer = BetonWriter(str(temporary), field, words, workers or len(os.sched_getaffinity(0)), progress)
        writer.write(Recorder(source, moments), _page_size(source, max_resolution))
        sidecar = _describe(
            temporary,
            source,
            moments,
            origin=origin,
            write={
                "mode": write_mode,
                "max_resolution": max_resolution,
                "quality": quality,
                "compress_probability": compress_probability if write_mode == "proportion" else None,
                "smart_threshold": smart_threshold if write_mode == "smart" else None,
            },
        )
        _sync(temporary)
        description = temporary.with_suffix(".json")
        description.write_text(sidecar.model_dump_json(indent=1) + "\n")
        _sync(description)
        # A crash between the two renames leaves a sidecar that does not fit the .beton, which the reader notices.
        description.rename(sidecar_path(out))
        temporary.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        for leftover in (temporary, temporary.with_suffix(".json")):
            leftover.unlink(missing_ok=True)
    return sidecar


def _check(out: Path, mode: str | None, max_resolution: int | None, quality: int, probability: float) -> None:
    if out.suffix != ".beton":
        raise DataError(f"{out}: expected a name that ends in .beton")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent}: no such folder: make it first")
    if mode is not None and mode not in WRITE_MODES:
        raise DataError(f"--write-mode: got {mode!r}, expected one of {', '.join(WRITE_MODES)}")
    if max_resolution is not None and not 0 < max_resolution < 65536:
        raise DataError(f"--max-resolution: got {max_resolution}, expected pixels between 1 and 65535")
    if not 1 <= quality <= 100:
        raise DataError(f"--quality: got {quality}, expected 1..100")
    if not 0 <= probability <= 1:
        raise DataError(f"--compress-probability: got {probability}, expected 0..1")


def _page_size(source: Source, max_resolution: int | None) -> int:
    """Bytes of the file's pages: a power of two that holds the largest image, and FFCV's 2 MiB at least.

    Every worker leaves its last page part empty, so small images get small pages.
    """
    pixels = source.largest() if max_resolution is None else max_resolution**2
    return max(1 << 21, 1 << (3 * pixels - 1).bit_length())


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
        std=np.sqrt(square - mean**2).tolist(),
        sizes=Sizes(height=_range(table["height"]), width=_range(table["width"])),
        bytes=len(file),
        jpeg_samples=int((table["mode"] == JPEG).sum()),
        write=write,
        source={"path": origin, "kind": type(source).__name__, "fingerprint": source.fingerprint()},
        versions={
            package: version(package) for package in ("distcls", "ffcv", "pillow", "opencv-python") if _has(package)
        },
    )


def _range(sizes: np.ndarray) -> list[int]:
    return [int(sizes.min()), int(np.median(sizes)), int(sizes.max())]


def _has(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
