"""One or more .beton files as one data set."""

import mmap
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distcls.data.beton.file_format import read_samples, read_words
from distcls.data.beton.multi_hot import pack, unpack, words_for
from distcls.data.beton.shard_names import expanded
from distcls.data.beton.sidecar import deviation, fingerprint_of, read_sidecar, sidecar_path
from distcls.data.errors import DataError

_OTHER_FILES = 200  # open files of a run beside its shards: sockets, checkpoints, libraries


class BetonDataset:
    """Images and labels of .beton files (shards), mapped into memory; 24 bytes of index per sample.

    Args:
        paths: one or more files or patterns such as ``train-*.beton``; samples are numbered across them in this order.

    Attributes:
        samples: (N,) table of `file_format.SAMPLE`; its addresses are valid as long as this object lives.
        class_names: the same in all shards.
        class_counts: (C,) number of images per class, over all shards.
        multi_label: whether an image may have any number of classes.
        mean, std: one float per RGB channel on the scale 0..1, over all shards.
        fingerprint: changes with the content and the order of the shards.
        sidecar: the first shard's sidecar.

    Raises:
        DataError: a file or its sidecar is missing, damaged, or does not belong to the others.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        named = [paths] if isinstance(paths, str | Path) else paths
        self.paths = [file for path in named for file in expanded(path)]
        if not self.paths:
            raise DataError("a data set needs one .beton file at least, got an empty list of paths")
        _allow_open_files(self.paths)
        self._identities = [_identity(path) for path in self.paths]
        self._checked = time.monotonic()
        self._guards: list[int] = []
        shards = [_Shard(path) for path in self.paths]
        self._files = [shard.file for shard in shards]
        for file in self._files:
            # Free the pages that the checks have read, some 30 MB per file.
            file._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        self.samples = np.concatenate([shard.table for shard in shards]) if len(shards) > 1 else shards[0].table
        self._ends = np.cumsum([len(shard.table) for shard in shards])

        sidecars = [shard.sidecar for shard in shards]
        self.sidecar = sidecars[0]
        self.class_names = self.sidecar.class_names
        self.multi_label = self.sidecar.multi_label
        for path, other in zip(self.paths, sidecars, strict=True):
            if other.class_names != self.class_names:
                raise DataError(
                    f"{path}: its {len(other.class_names)} classes are not the {len(self.class_names)} of "
                    f"{self.paths[0]} ({_first_difference(other.class_names, self.class_names)}): shards of one data "
                    "set need the same classes. Convert them from folders that hold the same classes."
                )
            if other.multi_label != self.multi_label:
                one, many = (path, self.paths[0]) if self.multi_label else (self.paths[0], path)
                raise DataError(
                    f"{many} holds any number of labels per image, {one} one: they cannot be shards of one data set"
                )
        self._words = np.concatenate([shard.words for shard in shards])
        self.class_counts = np.sum([sidecar.class_counts for sidecar in sidecars], axis=0)
        weights = np.array([sidecar.samples for sidecar in sidecars]) / len(self)
        mean = np.array([sidecar.mean for sidecar in sidecars])
        square = np.array([sidecar.std for sidecar in sidecars]) ** 2 + mean**2
        overall = weights @ mean
        self.mean = tuple(overall.tolist())
        self.std = tuple(deviation(overall, weights @ square))
        self.fingerprint = "+".join(sidecar.fingerprint for sidecar in sidecars)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class numbers; for multi-label data (N, C) uint8 of 0 and 1."""
        return unpack(self._words, self.num_classes) if self.multi_label else self.samples["label"].astype(np.int64)

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """The targets of a batch, for indices (n,) of which -1 is padding.

        Returns:
            (n,) int64 class numbers, -1 for padding; for multi-label data (n, C) float32 of 0 and 1, 0 for padding.
        """
        real = indices >= 0
        if self.multi_label:
            return unpack(self._words[indices], self.num_classes) * real[:, None].astype(np.float32)
        return np.where(real, self.samples["label"][indices], -1).astype(np.int64)

    def check_unchanged(self, every: float = 1.0) -> None:
        """Compare each file's inode, size and time with those when it was opened, at most once in `every` seconds.

        Raises:
            DataError: a file has changed since it was opened.
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

    def guard(self) -> None:
        """From now on an unreadable page of a file does not kill the process; `check_readable` reports it instead."""
        from distcls.data.beton.bus_error import guard  # may compile

        self._guards = [guard(file) for file in self._files]

    def check_readable(self) -> None:
        """Call it after reading.

        Raises:
            DataError: pages of a guarded file could not be read, so that zeros were read in their place.
        """
        if not self._guards:
            return
        from distcls.data.beton.bus_error import lost_pages

        for path, number in zip(self.paths, self._guards, strict=True):
            if lost_pages(number):
                self.check_unchanged(every=0)
                raise DataError(
                    f"{path}: some of its bytes cannot be read, though nobody changed the file: the disk or its server "
                    "fails (`dmesg` may say more). Copy the file anew, and start again."
                )

    def files(self) -> list[tuple[Path, int, int]]:
        """For each file its path, the address of its first byte in memory, and its size in bytes."""
        return [(path, file.ctypes.data, len(file)) for path, file in zip(self.paths, self._files, strict=True)]

    def place_of(self, index: int) -> str:
        """``FILE: sample NUMBER`` for messages, with the number within that file."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return f"{self.paths[shard]}: sample {index - (self._ends[shard - 1] if shard else 0)}"


def _allow_open_files(paths: list[Path]) -> None:
    """Raise this process's soft limit of open files, often 1024, if needed: each mapped shard stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + len(paths) + _OTHER_FILES
    if resource.RLIM_INFINITY in (soft, hard) or needed <= soft:
        return
    if needed > hard:
        raise DataError(
            f"{paths[0]} and {len(paths) - 1} other shards: got a limit of {hard} open files, expected {needed} or "
            "more: each shard is kept open. Raise the limit (`ulimit -Hn`, LimitNOFILE), or convert to fewer, larger "
            "shards."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _identity(path: Path) -> tuple[int, int, int, int] | None:
    """Device, inode, size in bytes and modification time in ns; None if the file cannot be reached."""
    try:
        status = os.stat(path)
    except OSError:  # the file or its folder is gone, or the file handle is stale (ESTALE)
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _change(before: tuple[int, int, int, int] | None, found: tuple[int, int, int, int] | None) -> str:
    assert before is not None
    if found is None:
        return "was removed, or can no longer be reached,"
    if found[:2] != before[:2]:
        return "was replaced by another file"
    if found[2] != before[2]:
        return f"went from {before[2]} to {found[2]} bytes"
    return "was written to"


class _Shard:
    """One file and its sidecar, checked against each other. `words` (n, fields) holds the multi-hot labels, if any."""

    def __init__(self, path: Path) -> None:
        self.file, self.table = read_samples(path)
        self.sidecar = read_sidecar(path)
        found = fingerprint_of(self.file, int(self.table["address"].min()) - self.file.ctypes.data)
        if self.sidecar.samples != len(self.table) or self.sidecar.fingerprint != found:
            raise DataError(
                f"{sidecar_path(path)}: belongs to another file: it describes {self.sidecar.samples} samples with "
                f"fingerprint {self.sidecar.fingerprint[-12:]}, but {path} holds {len(self.table)} with fingerprint "
                f"{found[-12:]}. Copy the two files together, or write both again with `distcls data convert`."
            )
        classes = len(self.sidecar.class_names)
        self.words = np.empty((len(self.table), 0), np.int64)
        if self.sidecar.multi_label:
            self.words = read_words(path, self.file)
            fits = self.words.shape[1] == words_for(classes)
            beyond = fits and (pack(unpack(self.words, classes)) != self.words).any(axis=1)
            wrong = np.flatnonzero(beyond if fits else np.ones(len(self.table)))
        else:
            wrong = np.flatnonzero((self.table["label"] < 0) | (self.table["label"] >= classes))
        if len(wrong):
            raise DataError(
                f"{path}: sample {wrong[0]} has a label outside of 0..{classes - 1}, the {classes} classes of "
                f"{sidecar_path(path)} ({len(wrong)} such samples). Write both again with `distcls data convert`."
            )


def _first_difference(one: list[str], other: list[str]) -> str:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"class {number} is {a!r}, there {b!r}"
    return "one list is longer"
