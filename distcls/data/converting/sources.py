"""Where images come from before they are a .beton: folders, lists, Fashion-MNIST's files, torchvision's sets."""

import gzip
import hashlib
import inspect
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distcls.data.converting.annotation_file import AnnotationSource
from distcls.data.converting.image_files import CsvSource, FolderSource
from distcls.data.errors import DataError
from distcls.registry import did_you_mean

_DIGITS = [str(digit) for digit in range(10)]
_FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
KINDS = ("folder", "csv", "list", "fashion-mnist", "mnist", "torchvision")
# What the folders of a split are called.
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class Source(Protocol):
    """Images (H, W, 3) uint8 RGB with labels, by number; read from several processes at once."""

    class_names: list[str]
    small: bool  # Images so small that JPEG would cost more than it saves.
    multi_label: bool  # Labels are (C,) of 0 and 1, not one number.

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]: ...

    def name_of(self, index: int) -> str:
        """For messages: the file of an image, or the set and number."""
        ...

    def pixels_of(self, index: int) -> int:
        """Height x width of an image, which need not be decoded for that."""
        ...

    def fingerprint(self, indices: list[int] | None = None) -> str:
        """Changes when the source, or these of its images, do."""
        ...


def open_source(
    path: Path,
    kind: str = "auto",
    split: str | None = None,
    dataset: str | None = None,
    image_root: Path | None = None,
    classes: Path | None = None,
) -> Source:
    """Find out what `path` is, or take `kind`'s word for it.

    Args:
        path: the folder, or a list.
        kind: one of KINDS, or auto.
        split: ``train``, ``val`` or ``test``.
        dataset: name of a class of torchvision.datasets.
        image_root, classes: of a list, see CsvSource.

    Raises:
        DataError: nothing there that can be read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder, expected the images to convert, or a list of them")
    if kind == "auto":
        kind, dataset = _recognise(path, dataset)
    if (kind in ("csv", "list")) != path.is_file():
        raise DataError(
            f"{path}: is a {'file' if path.is_file() else 'folder'}, but read as {kind}: expected a folder of images, "
            "or a list named .csv or .txt (or of any name, with --source-type csv or list)"
        )
    if dataset is not None and kind != "torchvision":
        raise DataError(f"--dataset {dataset}: goes with --source-type torchvision, but {path} is read as {kind}")
    if split is not None and kind in ("csv", "list"):
        raise DataError(
            f"--split {split}: {path} is one list, all of which would be written: give the list of that split, or add "
            "--val-share to hold a part out"
        )
    if kind in ("fashion-mnist", "mnist"):
        _refuse_unknown(split)
    if kind == "csv":
        return CsvSource(path, image_root, classes)
    if kind == "list":
        return AnnotationSource(path, image_root, classes)
    for option, value in (("--image-root", image_root), ("--classes", classes)):
        if value is not None:
            raise DataError(
                f"{option}: goes with a list of images, --source-type csv or list, but {path} is read as {kind}"
            )
    if kind == "folder":
        return FolderSource(_folder_of(path, split))
    if kind in ("fashion-mnist", "mnist"):
        return IdxSource(path, split or "train", _FASHION if kind == "fashion-mnist" else _DIGITS)
    if kind == "torchvision":
        return TorchvisionSource(path, split or "train", dataset)
    raise DataError(
        f"--source-type: got {kind!r}, expected auto or one of {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}"
    )


def _refuse_unknown(split: str | None) -> None:
    """Of a set whose splits are training and the rest: a slip would be the rest."""
    if split not in (None, *_SPLITS):
        raise DataError(f"--split: got {split!r}, expected one of {', '.join(_SPLITS)}")


def _recognise(path: Path, dataset: str | None) -> tuple[str, str | None]:
    if dataset:
        return "torchvision", dataset
    if path.suffix == ".csv":
        return "csv", None
    if path.suffix == ".txt":
        return "list", None
    for folder, name in (("cifar-10-batches-py", "CIFAR10"), ("cifar-100-python", "CIFAR100")):
        if (path / folder).is_dir():
            return "torchvision", name
    if list(path.glob("*-images-idx3-ubyte*")):
        # MNIST's files have the same names.
        return ("fashion-mnist" if "fashion" in str(path.resolve()).lower() else "mnist"), None
    return "folder", None


def _folder_of(path: Path, split: str | None) -> Path:
    """Where the classes' folders are: the images of train and val must not become one set, or two classes."""
    if split is not None:
        for name in _SPLITS.get(split, (split,)):
            if (path / name).is_dir():
                return path / name
        raise DataError(f"--split {split}: {path} has no folder {split}: name the folder of the classes' folders")
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    found = [split for split, names in _SPLITS.items() if set(names) & set(folders)]
    if folders and set(folders) <= {name for names in _SPLITS.values() for name in names}:
        raise DataError(
            f"{path}: holds the folders {', '.join(folders)}, not classes: add --split {found[0]}, without --val-share"
        )
    return path


class IdxSource:
    """The four idx files of MNIST and Fashion-MNIST, gzipped or not."""

    small = True
    multi_label = False

    def __init__(self, root: Path, split: str, class_names: list[str]) -> None:
        prefix = "train" if split == "train" else "t10k"
        self.class_names = class_names
        self._images_file = _one_of(root, f"{prefix}-images-idx3-ubyte")
        labels_file = _one_of(root, f"{prefix}-labels-idx1-ubyte")
        self._images, self._labels = _read_idx(self._images_file), _read_idx(labels_file)
        if self._images.ndim != 3 or self._labels.shape != self._images.shape[:1]:
            raise DataError(
                f"{self._images_file}: got images {self._images.shape} with labels {self._labels.shape}, "
                "expected (N, height, width) and (N,). Get both files again."
            )
        if not self._images.size or self._labels.max() >= len(class_names):
            raise DataError(
                f"{labels_file}: got {len(self._labels)} labels up to {self._labels.max(initial=0)}, expected some, "
                f"of the {len(class_names)} classes 0..{len(class_names) - 1}"
            )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.repeat(self._images[index][:, :, None], 3, axis=2), int(self._labels[index])

    def name_of(self, index: int) -> str:
        return f"{self._images_file}: image {index}"

    def pixels_of(self, index: int) -> int:
        return self._images[index].size

    def fingerprint(self, indices: list[int] | None = None) -> str:
        images, labels = (
            (self._images, self._labels) if indices is None else (self._images[indices], self._labels[indices])
        )
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def _one_of(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{root / name}: no such file, nor {name}.gz: expected Fashion-MNIST's four idx files in {root}")


def _read_idx(path: Path) -> np.ndarray:
    """An idx file of bytes: two zero bytes, type 8, rank, big-endian sizes, data (yann.lecun.com/exdb/mnist)."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be unpacked: {error}. Get the file again.") from error
    rank = data[3] if len(data) >= 4 and data[:3] == b"\0\0\x08" else 0
    if not rank or len(data) < 4 + 4 * rank:
        raise DataError(
            f"{path}: not an idx file of bytes: it begins with {data[:4].hex() or 'nothing'}. Get the file again."
        )
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    found, expected = len(data) - 4 - 4 * rank, int(np.prod(shape))
    if found != expected:
        raise DataError(f"{path}: got {found} bytes of data, expected {expected} for {shape}. Get the file again.")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


class TorchvisionSource:
    """A classification set of torchvision.datasets that is on disk already."""

    multi_label = False

    def __init__(self, root: Path, split: str, dataset: str | None) -> None:
        import torchvision.datasets as sets

        names = [name for name in sets.__all__ if isinstance(getattr(sets, name), type)]
        if dataset is None or dataset not in names:
            hint = did_you_mean(dataset, names) if dataset else " For example --dataset CIFAR10."
            raise DataError(f"--dataset: got {dataset!r}, expected the name of a class of torchvision.datasets.{hint}")
        maker: Any = getattr(sets, dataset)
        arguments = inspect.signature(maker).parameters
        choice: dict[str, Any] = {}
        if "train" in arguments:
            _refuse_unknown(split)
            choice = {"train": split == "train"}
        if "split" in arguments:
            choice = {"split": split}
        if "download" in arguments:  # some would by default
            choice["download"] = False
        try:
            self._set = maker(str(root), **choice)
        except Exception as error:  # what is missing, or damaged, each of them finds out in its own way
            text = str(error).strip().partition("\n")[0] or type(error).__name__
            raise DataError(f"{root}: torchvision's {dataset} cannot read its {split} split there: {text}") from error
        self._name = f"torchvision {dataset} {split}"
        labels = getattr(self._set, "targets", getattr(self._set, "labels", None))
        names_of_set = getattr(self._set, "classes", None)
        if names_of_set is None:
            if labels is None:
                raise DataError(
                    f"{self._name}: has neither class names nor a list of labels: convert it from a folder instead"
                )
            names_of_set = [str(label) for label in range(int(np.max(labels)) + 1)]
        # ImageNet's classes are tuples of synonyms.
        self.class_names = [", ".join(name) if isinstance(name, tuple) else str(name) for name in names_of_set]
        self._first = self[0][0].shape
        self.small = max(self._first) <= 96

    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        with self._reading(index):
            image, label = self._set[index]
            pixels, label = np.asarray(image.convert("RGB")), int(label)
        if not 0 <= label < len(self.class_names):
            raise DataError(f"{self.name_of(index)}: got label {label}, expected 0..{len(self.class_names) - 1}")
        return pixels, label

    @contextmanager
    def _reading(self, index: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise DataError(f"{self.name_of(index)}: cannot be read: {type(error).__name__}: {error}") from error

    def name_of(self, index: int) -> str:
        return f"{self._name}: image {index}"

    def pixels_of(self, index: int) -> int:
        """Small images of these sets are all of one size."""
        if self.small:
            return self._first[0] * self._first[1]
        with self._reading(index):
            image, _ = self._set[index]
            return image.width * image.height

    def fingerprint(self, indices: list[int] | None = None) -> str:
        """Over its name, length and first and last image; of some of them also over their numbers."""
        digest = hashlib.sha256(f"{self._name} {len(self)}".encode())
        if indices is not None:
            digest.update(np.array(indices, "<i8").tobytes())
        for index in (0, len(self) - 1) if indices is None else (indices[0], indices[-1]):
            digest.update(self[index][0].tobytes())
        return digest.hexdigest()
