"""One or several .beton files as one data set."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distcls.data.beton import read_samples
from distcls.data.errors import DataError
from distcls.data.sidecar import Sidecar, fingerprint_of, read_sidecar, sidecar_path


class BetonDataset:
    """Images and labels of .beton files (shards), mapped into memory; 24 bytes of index per sample.

    Args:
        paths: one file or several; samples are numbered through them in the order given.

    Attributes:
        samples: (N,) table of `beton.SAMPLE`, whose addresses stay valid as long as this object lives.
        class_names: the same in all shards.
        mean, std: three floats per RGB channel on the scale 0..1, over all shards.
        fingerprint: changes when a shard, or their order, changes.
        sidecar: the first shard's sidecar.

    Raises:
        DataError: a file or its sidecar is missing, damaged, or does not belong to the others.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        self.paths = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
        if not self.paths:
            raise DataError("a data set needs one .beton file at least, got an empty list of paths")
        self._identities = [_identity(path) for path in self.paths]
        self._checked = time.monotonic()
        shards = [_open(path) for path in self.paths]
        self._files = [file for file, _, _ in shards]
        self.samples = np.concatenate([table for _, table, _ in shards]) if len(shards) > 1 else shards[0][1]
        self._ends = np.cumsum([len(table) for _, table, _ in shards])

        sidecars = [sidecar for _, _, sidecar in shards]
        self.sidecar = sidecars[0]
        self.class_names = self.sidecar.class_names
        for path, other in zip(self.paths, sidecars, strict=True):
            if other.class_names != self.class_names:
                raise DataError(
                    f"{path}: its {len(other.class_names)} classes are not the {len(self.class_names)} of "
                    f"{self.paths[0]} ({_first_difference(other.class_names, self.class_names)}): shards of one data "
                    "set need the same classes. Convert them from folders that hold the same classes."
                )
        weights = np.array([sidecar.samples for sidecar in sidecars]) / len(self)
        mean = np.array([sidecar.mean for sidecar in sidecars])
        square = np.array([sidecar.std for sidecar in sidecars]) ** 2 + mean**2
        overall = weights @ mean
        self.mean = tuple(overall.tolist())
        self.std = tuple(np.sqrt(weights @ square - overall**2).tolist())
        self.fingerprint = "+".join(sidecar.fingerprint for sidecar in sidecars)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        return self.samples["label"].astype(np.int64)

    def check_unchanged(self, every: float = 1.0) -> None:
        """Look at each file's inode, size and time, unless that was done less than `every` seconds ago.

        Raises:
            DataError: a file is not the one that was opened.
        """
        now = time.monotonic()
        if now - self._checked < every:
            return
        self._checked = now
        for path, before in zip(self.paths, self._identities, strict=True):
            if (found := _identity(path)) != before:
                raise DataError(
                    f"{path}: {_change(before, found)} while it was in use: batches from now on would not be this "
                    "run's. Put the file back that the run began with and start again, or begin a new run."
                )

    def place_of(self, index: int) -> str:
        """For messages: ``FILE: sample NUMBER`` with the number in that file."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return f"{self.paths[shard]}: sample {index - (self._ends[shard - 1] if shard else 0)}"


def _identity(path: Path) -> tuple[int, int, int, int] | None:
    """Device, inode, bytes and time of writing in ns; None where there is no file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _change(before: tuple[int, int, int, int] | None, found: tuple[int, int, int, int] | None) -> str:
    assert before is not None
    if found is None:
        return "was removed"
    if found[:2] != before[:2]:
        return "was replaced by another file"
    if found[2] != before[2]:
        return f"went from {before[2]} to {found[2]} bytes"
    return "was written to"


def _open(path: Path) -> tuple[np.memmap, np.ndarray, Sidecar]:
    file, table = read_samples(path)
    sidecar = read_sidecar(path)
    found = fingerprint_of(file, int(table["address"].min()) - file.ctypes.data)
    if sidecar.samples != len(table) or sidecar.fingerprint != found:
        raise DataError(
            f"{sidecar_path(path)}: belongs to another file: it describes {sidecar.samples} samples with fingerprint "
            f"{sidecar.fingerprint[-12:]}, but {path} holds {len(table)} with fingerprint {found[-12:]}. Copy the two "
            "files together, or write both again with `distcls data convert`."
        )
    wrong = np.flatnonzero((table["label"] < 0) | (table["label"] >= len(sidecar.class_names)))
    if len(wrong):
        raise DataError(
            f"{path}: sample {wrong[0]} has a label outside of 0..{len(sidecar.class_names) - 1}, the "
            f"{len(sidecar.class_names)} classes of {sidecar_path(path)} ({len(wrong)} such samples). Write both again "
            "with `distcls data convert`."
        )
    return file, table, sidecar


def _first_difference(one: list[str], other: list[str]) -> str:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"class {number} is {a!r}, there {b!r}"
    return "one list is longer"
