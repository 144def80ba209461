"""Images as single files, with their labels from the folders that they lie in, or from a list."""

import csv
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distcls.data.beton.multi_hot import MOST_CLASSES
from distcls.data.class_names import read_class_names
from distcls.data.errors import DataError
from distcls.data.text_file import text_of
from distcls.registry import did_you_mean

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class ImageFiles:
    """A Source of files below `root`; a subclass fills `class_names` and `files`, pairs of a path and a label."""

    small = False
    multi_label = False
    listed = False  # by a list, which may mean another folder
    class_names: list[str]

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[tuple[str, Any]] = []

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        with self._open(index) as image:
            return _rgb(image), self.files[index][1]

    @contextmanager
    def _open(self, index: int) -> Iterator[Image.Image]:
        path, name = self.root / self.files[index][0], self.name_of(index)
        try:
            if not path.exists():
                from_ = f": the list's paths start from {self.root}, or from --image-root" if self.listed else ""
                raise DataError(f"{name}: no such file{from_}")
            if not path.is_file():  # a pipe would be waited for
                raise ValueError("is not a regular file")
            with Image.open(path) as image:
                yield image
        except DataError:
            raise
        except Exception as error:  # damaged files make Pillow's decoders raise anything
            text = getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
            if isinstance(error, Image.DecompressionBombError):
                text = f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
            raise DataError(f"{name}: cannot be read as an image: {text}. Mend it or move it away.") from error

    def name_of(self, index: int) -> str:
        return printable(self.root / self.files[index][0])

    def pixels_of(self, index: int) -> int:
        """Reads the file's header, which also finds what is no image before the long work begins."""
        with self._open(index) as image:
            return image.width * image.height

    def fingerprint(self, indices: list[int] | None = None) -> str:
        """Over names and sizes; of some of them also over their labels."""
        digest = hashlib.sha256()
        for file, _ in self.files if indices is None else [self.files[index] for index in indices]:
            digest.update(octets(f"{file}\0{_bytes(self.root / file)}\n"))
        for index in indices or ():
            digest.update(np.asarray(self.files[index][1], "<i4").tobytes())
        return digest.hexdigest()


def images_below(folder: Path) -> list[Path]:
    """The image files at any depth, in no order. Links to folders are followed, but not to one that holds the link.

    Raises:
        DataError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{printable(error.filename)}: cannot be read: {error.strerror}") from error

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = f"{os.path.realpath(place)}/"
        folders[:] = [name for name in folders if not here.startswith(f"{os.path.realpath(f'{place}/{name}')}/")]
        found += [Path(place, name) for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return found


class FolderSource(ImageFiles):
    """One sub-folder per class, sorted by name; images at any depth below it, sorted by path."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.class_names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        for label, name in enumerate(self.class_names):
            if printable(name) != name:
                raise DataError(
                    f"{printable(root / name)}: its name is not UTF-8, expected a class's name. Rename it, e.g. "
                    f"`convmv -r -f latin1 -t utf-8 --notest {printable(root)}`"
                )
            files = sorted(str(file.relative_to(root)) for file in images_below(root / name))
            if not files:
                raise DataError(
                    f"{root / name}: holds no images, expected those of class {name!r} (one sub-folder per class)"
                )
            self.files += [(file, label) for file in files]
        if not self.files:
            raise DataError(f"{root}: got no sub-folders with images, expected one sub-folder per class")


class CsvSource(ImageFiles):
    """A list with a header. ``path,labels``: any number of labels, separated by semicolons. ``path,label``: just one.

    Args:
        path: the list.
        image_root: folder that its paths are relative to; the list's own if None.
        classes: a text file of the classes, one a line and in their order, so that several lists agree; if None, they
            are those of the list, sorted.
    """

    listed = True

    def __init__(self, path: Path, image_root: Path | None = None, classes: Path | None = None) -> None:
        super().__init__(image_root or path.parent)
        try:
            rows = self._read(path)
        except csv.Error as error:
            raise DataError(f"{path}: is no list of comma-separated values: {error}. Is a quote left open?") from error
        named = {name for _, _, names in rows for name in names}
        if not named:
            raise DataError(f"{path}: none of its {len(rows)} images has a label")
        self.class_names = read_class_names(classes) if classes else sorted(named)
        number = {name: label for label, name in enumerate(self.class_names)}
        if len(number) > MOST_CLASSES and self.multi_label:
            raise DataError(f"{path}: got {len(number)} classes, expected at most {MOST_CLASSES} for several labels")
        for line, file, names in rows:
            for name in names:
                if name not in number:
                    raise DataError(f"{path}:{line}: no class {name!r} in {classes}.{did_you_mean(name, number)}")
            labels = [number[name] for name in names]
            self.files.append((file, _multi_hot(labels, len(number)) if self.multi_label else labels[0]))
        self._list = path.read_bytes() + "\n".join(self.class_names).encode()

    def _read(self, path: Path) -> list[tuple[int, str, list[str]]]:
        """Line, path and labels of each image."""
        table = csv.reader(io.StringIO(text_of(path), newline=""))
        header = [name.strip() for name in next(table, [])]
        if header not in (["path", "labels"], ["path", "label"]):
            raise DataError(
                f"{path}:1: got the header {shortened(','.join(header))}, expected 'path,labels' (any number of "
                "labels, separated by semicolons) or 'path,label'"
            )
        self.multi_label = header[1] == "labels"
        rows = []
        for row in filter(None, table):
            names = row[1].split(";") if self.multi_label and len(row) == 2 else row[1:]
            names = [name.strip() for name in names if name.strip()]
            if len(row) != 2 or not (self.multi_label or len(names) == 1):
                raise DataError(f"{path}:{table.line_num}: got {shortened(','.join(row))}, expected {','.join(header)}")
            rows.append((table.line_num, row[0], names))
        if not rows:
            raise DataError(f"{path}: lists no images")
        return rows

    def fingerprint(self, indices: list[int] | None = None) -> str:
        """Over names, sizes and labels."""
        content = super().fingerprint(indices)
        return content if indices is not None else hashlib.sha256(self._list + content.encode()).hexdigest()


def _rgb(image: Image.Image) -> np.ndarray:
    """(height, width, 3) uint8. Of 16 bits a channel the upper 8: Pillow would clip them, to a white image."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() >= 1 << 16:
        raise ValueError(f"its pixels are {values.dtype} numbers, expected 8 or 16 bits a channel")
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)


def printable(name: str | Path) -> str:
    """As it is, or with \\xe4 for a byte that is not UTF-8: file names may hold any."""
    return octets(str(name)).decode(errors="backslashreplace")


def octets(name: str) -> bytes:
    """As the file system has them."""
    return name.encode(errors="surrogateescape")


def shortened(text: str) -> str:
    """In quotes, for messages."""
    return repr(text if len(text) < 80 else f"{text[:77]}...")


def _bytes(path: Path) -> int | None:
    """None where there is no file: then it is one of those that cannot be read."""
    return path.stat().st_size if path.exists() else None


def _multi_hot(labels: list[int], classes: int) -> np.ndarray:
    hot = np.zeros(classes, np.uint8)
    hot[labels] = 1
    return hot
