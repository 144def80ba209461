"""A validation split for a folder or list of images that comes without one."""

import hashlib

import numpy as np

from distcls.data.converting.image_files import ImageFiles, octets
from distcls.data.converting.sources import Source
from distcls.data.converting.subset import Subset
from distcls.data.errors import DataError

PARTS = ("train", "val")


def part_of(source: Source, part: str | None, val_share: float) -> Subset:
    """The images of `part`: a `val_share` of each class is ``val``, the rest ``train``.

    Every class with two or more images has at least one in each part. The split depends only on hashes of the images'
    paths relative to the source, so it is reproducible, and adding or removing images moves few of the others.
    Multi-label images are split as if all were of one class. An image that a list names several times is in one part
    only.

    Raises:
        DataError: `source` is not one of files, `part` is unknown, or the share is out of range or leaves `part` empty.
    """
    if not isinstance(source, ImageFiles):
        raise DataError("--val-share: is for a folder or a list of images; sets with parts of their own have --split")
    if part not in PARTS:
        raise DataError(f"--val-share: got --split {part}, expected the part to write: --split train or --split val")
    if not 0 < val_share < 1:
        raise DataError(f"--val-share: got {val_share:g}, expected a share between 0 and 1, for example 0.2")
    classes: dict[int, list[int]] = {}
    for index, (_, label) in enumerate(source.files):
        classes.setdefault(0 if source.multi_label else label, []).append(index)
    chosen = np.zeros(len(source), bool)
    for indices in classes.values():
        indices.sort(key=lambda index: hashlib.sha256(octets(source.files[index][0])).digest())
        most = len(indices) - 1
        chosen[indices[: min(max(round(val_share * len(indices)), 1), most)]] = True
    # A list may name an image several times, even with different labels: keep it in one part.
    held = {source.files[index][0] for index in np.flatnonzero(chosen)}
    chosen = np.array([file in held for file, _ in source.files])
    numbers = np.flatnonzero(chosen if part == "val" else ~chosen)
    if not len(numbers):
        raise DataError(f"--val-share {val_share:g}: leaves nothing for --split {part}: no class has two images")
    return Subset(source, numbers)
