"""Writes the sidecar of a .beton made by another program, such as ffcv-imagenet, which stores no class names."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distcls.data.beton.file_format import JPEG, read_samples, read_words
from distcls.data.beton.multi_hot import pack, unpack, words_for
from distcls.data.beton.sidecar import Sidecar, Sizes, deviation, fingerprint_of, sidecar_path
from distcls.data.converting.target import replace
from distcls.data.decoding.decode_cpu import decode_whole
from distcls.data.errors import DataError
from distcls.data.inspecting.scan import Guarded, scan


def describe(
    path: Path,
    class_names: list[str],
    *,
    multi_label: bool = False,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Sidecar:
    """Decode every image for the statistics, and write the sidecar.

    Args:
        path: the .beton.
        class_names: in the order of the labels.
        multi_label: its int fields hold one bit per class, as packed by `multi_hot.pack`, instead of a class number.
        workers: threads.
        progress: called now and then with the number of images done.

    Raises:
        DataError: the sidecar exists, an image is damaged, a label has no name, or the file changed while being read.
    """
    target = sidecar_path(path)
    if target.exists():
        raise DataError(f"{target}: exists already: move it away to write it anew")
    file, table = read_samples(path)
    guarded = Guarded(path, file)
    counts = _multi_label_counts(path, file, class_names) if multi_label else _counts(path, table, class_names)
    moments = np.zeros((len(table), 2, 3))

    def visit(index: int) -> None:
        pixels = decode_whole(table, index)
        if pixels is None:
            damage = f"sample {index}: its JPEG data is damaged and cannot be decoded"
            raise DataError(f"{path}: {guarded.what_happened() or damage}")
        # From histograms of the 256 values: exact, and without a float copy of the image.
        counts = np.stack([np.bincount(pixels[:, :, channel].ravel(), minlength=256) for channel in range(3)], 1)
        values = np.arange(256)[:, None] / 255
        moments[index] = np.stack(((counts * values).sum(0), (counts * values**2).sum(0))) * 3 / pixels.size

    scan(len(table), visit, workers, progress)
    mean, square = moments.mean(0)
    sidecar = Sidecar(
        fingerprint=fingerprint_of(file, int(table["address"].min()) - file.ctypes.data),
        samples=len(table),
        class_names=class_names,
        class_counts=counts.tolist(),
        multi_label=multi_label,
        sha256=hashlib.sha256(file.data).hexdigest(),
        mean=mean.tolist(),
        std=deviation(mean, square),
        sizes=Sizes.of(table),
        bytes=len(file),
        jpeg_samples=int((table["mode"] == JPEG).sum()),
        write={},
        source={"path": str(path.resolve()), "kind": "described", "fingerprint": None},
        versions={},
    )
    if happened := guarded.what_happened():
        raise DataError(f"{path}: {happened}")
    replace(target, sidecar.model_dump_json(indent=1) + "\n")
    return sidecar


def _counts(path: Path, table: np.ndarray, class_names: list[str]) -> np.ndarray:
    wrong = np.flatnonzero((table["label"] < 0) | (table["label"] >= len(class_names)))
    if len(wrong):
        raise DataError(
            f"{path}: sample {wrong[0]} has label {table['label'][wrong[0]]}, expected one of the {len(class_names)} "
            f"classes, 0..{len(class_names) - 1} ({len(wrong)} such samples). Does --class-names belong to this file?"
        )
    return np.bincount(table["label"], minlength=len(class_names))


def _multi_label_counts(path: Path, file: np.ndarray, class_names: list[str]) -> np.ndarray:
    words, classes = read_words(path, file), len(class_names)
    if words.shape[1] != words_for(classes):
        raise DataError(
            f"{path}: holds {words.shape[1]} int fields, expected {words_for(classes)} for one bit of each of "
            f"{classes} classes. Does --class-names belong to this file?"
        )
    hot = unpack(words, classes)
    wrong = np.flatnonzero((pack(hot) != words).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{path}: sample {wrong[0]} has a class beyond the {classes} of --class-names ({len(wrong)} such samples). "
            "Does --class-names belong to this file, and does it hold several labels per image?"
        )
    return hot.sum(axis=0, dtype=np.int64)
