"""A share of a folder's or a list's images held out for validation, where nobody has sorted them into two."""

import hashlib

import numpy as np

from distcls.data.converting.image_files import ImageFiles, octets
from distcls.data.converting.sources import Source
from distcls.data.converting.subset import Subset
from distcls.data.errors import DataError

PARTS = ("train", "val")


def part_of(source: Source, part: str | None, val_share: float) -> Subset:
    """The images of `part`: of each class `val_share` is ``val``, at least one where there are two, the rest ``train``.

    Which ones they are follows from the hashes of their paths, relative to the source: the same ones every time, and
    when images come or go nearly all of the others stay where they are. Several labels an image: as if of one class. An
    image that a list names more than once is in one part alone.

    Raises:
        DataError: not a source of files, another `part`, or a share that leaves nothing for one of them.
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
    # A list may name an image several times, with other labels too: it is in one part all the same.
    held = {source.files[index][0] for index in np.flatnonzero(chosen)}
    chosen = np.array([file in held for file, _ in source.files])
    numbers = np.flatnonzero(chosen if part == "val" else ~chosen)
    if not len(numbers):
        raise DataError(f"--val-share {val_share:g}: leaves nothing for --split {part}: no class has two images")
    return Subset(source, numbers)
