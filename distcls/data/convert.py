"""Images on disk -> OUT.beton and OUT.json."""

import errno
import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

from distcls.data.beton import JPEG, read_samples, read_words
from distcls.data.errors import DataError
from distcls.data.multi_hot import unpack, words_for
from distcls.data.sidecar import Sidecar, Sizes, fingerprint_of, sidecar_path
from distcls.data.sources import Source

WRITE_MODES = ("raw", "jpg", "proportion", "smart")
ON_ERROR = ("stop", "skip")


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
    on_error: str = "stop",
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
        on_error: at an image that cannot be read stop, or skip it; those skipped are listed in OUT.report.json.
        origin: where the source lies, for the sidecar.
        progress: called now and then with the number of images done.

    Returns:
        The sidecar.

    Raises:
        DataError: an image is unreadable (the text names it), `out` cannot be written, or is being written by another
            process.
    """
    from ffcv.fields import RGBImageField

    from distcls.data.writer import BetonWriter, Recorder

    _check(out, write_mode, max_resolution, quality, compress_probability, on_error)
    write_mode = write_mode or ("raw" if source.small else "jpg")
    moments = np.frombuffer(mmap.mmap(-1, len(source) * 6 * 4), np.float32).reshape(-1, 2, 3)
    field = RGBImageField(
        write_mode=write_mode,
        max_resolution=max_resolution,
        smart_threshold=smart_threshold,
        jpeg_quality=quality,
        compress_probability=compress_probability,
    )
    try:
        with _temporary(out) as (temporary, file):
            words = words_for(len(source.class_names)) if source.multi_label else 1
            skip = on_error == "skip"
            cores = workers or len(os.sched_getaffinity(0))
            writer = BetonWriter(file, field, words, cores, skip=skip, progress=progress)
            writer.write(Recorder(source, moments), _page_size(source, max_resolution, skip))
            kept = np.ones(len(source), bool)
            kept[[index for index, _ in writer.skipped]] = False
            sidecar = _describe(
                temporary,
                source,
                moments[kept],
                origin=origin,
                write={
                    "mode": write_mode,
                    "max_resolution": max_resolution,
                    "quality": quality,
                    "compress_probability": compress_probability if write_mode == "proportion" else None,
                    "smart_threshold": smart_threshold if write_mode == "smart" else None,
                    "skipped": len(writer.skipped) if skip else None,
                },
            )
            os.fsync(file)
            if skip:
                skipped = [{"image": source.name_of(index), "error": text} for index, text in writer.skipped]
                report = {"source": origin, "images": len(source), "written": sidecar.samples, "skipped": skipped}
                _replace(report_path(out), json.dumps(report, indent=1) + "\n")
            # A crash between the two leaves a sidecar that does not fit the .beton, which the reader notices.
            _replace(sidecar_path(out), sidecar.model_dump_json(indent=1) + "\n")
            temporary.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}. It is as it was before.") from error
    return sidecar


def report_path(out: Path) -> Path:
    """train.beton -> train.report.json."""
    return out.with_suffix(".report.json")


@contextmanager
def _temporary(out: Path) -> Iterator[tuple[Path, int]]:
    """The file, and its descriptor, that becomes `out`; gone at the end unless it was renamed.

    It is its own lock, which the kernel drops with the last process that holds it: what a killed conversion left is
    taken over by the next one.
    """
    temporary = out.with_name(f".{out.name}.tmp")
    file = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = not temporary.exists() or os.fstat(file).st_ino != temporary.stat().st_ino
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.ENOSYS, errno.ENOTSUP):
                raise
            taken = error.errno == errno.EWOULDBLOCK  # else the file system has no locks
        if taken:
            raise DataError(f"{out}: another `distcls data convert` is writing it: wait for it, or give another name")
        os.ftruncate(file, 0)
        try:
            yield temporary, file
        finally:
            temporary.unlink(missing_ok=True)
    finally:
        os.close(file)


def _replace(path: Path, text: str) -> None:
    """The file as a whole or, on a full disk, as it was."""
    new = path.with_name(f".{path.name}.tmp")
    try:
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


def _check(
    out: Path, mode: str | None, max_resolution: int | None, quality: int, probability: float, on_error: str
) -> None:
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
    if on_error not in ON_ERROR:
        raise DataError(f"--on-error: got {on_error!r}, expected one of {', '.join(ON_ERROR)}")


def _page_size(source: Source, max_resolution: int | None, skip: bool) -> int:
    """Bytes of the file's pages: a power of two that holds the largest image, and FFCV's 2 MiB at least."""
    if max_resolution is not None:
        pixels = max_resolution**2
    else:
        try:
            pixels = source.largest()
        except DataError:
            if not skip:
                raise
            pixels = _largest_readable(source)
    return max(1 << 21, 1 << (3 * pixels - 1).bit_length())


def _largest_readable(source: Source) -> int:
    """Pixels of the largest image where some cannot be read: decodes all of them, for want of anything better."""

    def pixels(index: int) -> int:
        try:
            return source[index][0].size // 3
        except DataError:
            return 1

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return max(threads.map(pixels, range(len(source))))


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
        sizes=Sizes.of(table),
        bytes=len(file),
        jpeg_samples=int((table["mode"] == JPEG).sum()),
        write=write,
        source={"path": origin, "kind": type(source).__name__, "fingerprint": source.fingerprint()},
        versions={
            package: version(package) for package in ("distcls", "ffcv", "pillow", "opencv-python") if _has(package)
        },
    )


def _has(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
