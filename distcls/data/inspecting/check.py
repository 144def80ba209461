"""Integrity check of .beton files down to every image, and detection of images shared by two files."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Literal

import numpy as np

from distcls.data.beton.file_format import JPEG, read_samples
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_whole
from distcls.data.errors import DataError
from distcls.data.inspecting.scan import Guarded, jpeg_size, scan, stored_bytes

_LISTED = 10  # faults of one kind that are listed
_DIGEST = np.dtype("V16")


@dataclass(frozen=True)
class Finding:
    level: Literal["ok", "note", "FAULT"]
    text: str


class FileCheck:
    """Checks one .beton: structure, sidecar and labels in the constructor, the images in `decode`.

    Args:
        path: the file.

    Attributes:
        findings: in the order found.
        images: number of images for `decode`; 0 if the structure is damaged.
        digests: (images,) of 16 bytes, filled by `decode`: images of equal size and pixels have equal digests.
        class_names: from the sidecar; empty if it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.images = 0
        self.class_names: list[str] = []
        try:
            self._file, self.samples = read_samples(path)
        except DataError as error:
            self._add("FAULT", str(error))
            return
        self.images = len(self.samples)
        self._labels = self.samples["label"]
        self._sha256: str | None = None
        self.digests = np.zeros(self.images, _DIGEST)
        self._damaged = np.zeros(self.images, bool)
        jpegs = int((self.samples["mode"] == JPEG).sum())
        self._add(
            "ok",
            f"structure: {self.images} images ({jpegs} as JPEG), {len(self._file) / 2**20:.1f} MiB",
        )
        try:
            dataset = BetonDataset(path)
        except DataError as error:
            self._add("FAULT", str(error))
            return
        self.class_names = dataset.class_names
        self._add("ok", f"sidecar: belongs to the file, {dataset.fingerprint}")
        self._labels = dataset.labels
        self._sha256 = dataset.sidecar.sha256
        self._classes(dataset)

    @property
    def faulty(self) -> bool:
        return any(finding.level == "FAULT" for finding in self.findings)

    def _add(self, level: Literal["ok", "note", "FAULT"], text: str) -> None:
        self.findings.append(Finding(level, text))

    def _classes(self, dataset: BetonDataset) -> None:
        labels = dataset.labels
        if dataset.multi_label:
            counts = labels.sum(0, dtype=np.int64)
            without = int((labels.sum(1, dtype=np.int64) == 0).sum())
            each = f", {labels.sum() / len(labels):.2f} classes an image, {without} images with none"
        else:
            counts, each = np.bincount(labels, minlength=dataset.num_classes), ""
        spread = f"{counts.min()} .. {int(np.median(counts))} .. {counts.max()}"
        self._add("ok", f"labels: {dataset.num_classes} classes of {spread} images (min, median, max){each}")
        if counts.tolist() != dataset.sidecar.class_counts:
            self._add("FAULT", "class_counts of the sidecar are not those of the labels: write both again")
        empty = [name for name, count in zip(dataset.class_names, counts, strict=True) if not count]
        if empty:
            self._add("note", f"{len(empty)} classes without images: {_listed(empty)}")

    def decode(self, workers: int, progress: Callable[[int], None]) -> None:
        """Hash the file, decode every image, compare JPEG header sizes with the table, and find duplicate images."""
        problems: dict[int, str] = {}
        guarded = Guarded(self.path, self._file)

        def visit(index: int) -> None:
            sample = self.samples[index]
            if sample["mode"] == JPEG:
                found = jpeg_size(stored_bytes(self._file, sample).tobytes())
                if found != (sample["height"], sample["width"]):
                    is_ = f"a JPEG of {found[1]}x{found[0]}" if found else "no JPEG"
                    problems[index] = f"is {is_}, but {sample['width']}x{sample['height']} in the table"
                    return
            pixels = decode_whole(self.samples, index)
            if pixels is None:
                problems[index] = "its JPEG data is damaged and cannot be decoded"
                return
            digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=_DIGEST.itemsize)
            digest.update(pixels.data)
            self.digests[index] = np.void(digest.digest())

        found: list[str] = []
        # A daemon thread, so that Ctrl-C does not wait for it: hashing a large file takes minutes.
        hashing = Thread(target=lambda: found.append(hashlib.sha256(self._file.data).hexdigest()), daemon=True)
        if self._sha256:
            hashing.start()
        scan(self.images, visit, workers, progress)
        if self._sha256:
            hashing.join()
        if happened := guarded.what_happened():
            self._add("FAULT", happened)
            self._damaged[:] = True  # unknown which: trust none
            return
        if self._sha256:
            if found == [self._sha256]:
                self._add("ok", "bytes: all as they were written (SHA-256)")
            else:
                text = "its bytes are not those that were written (SHA-256): copy it again, or write it again"
                self._add("FAULT", text)
        for index in sorted(problems)[:_LISTED]:
            self._add("FAULT", f"sample {index}: {problems[index]}")
        if len(problems) > _LISTED:
            self._add("FAULT", f"and {len(problems) - _LISTED} more images")
        if not problems:
            self._add("ok", f"images: all {self.images} decode, in the sizes of the table")
        self._damaged[list(problems)] = True
        self._repeats()

    def _repeats(self) -> None:
        whole = np.flatnonzero(~self._damaged)
        _, first, back = np.unique(self.digests[whole], return_index=True, return_inverse=True)
        repeats = np.flatnonzero(first[back] != np.arange(len(whole)))
        if not len(repeats):
            return
        pairs = [(int(whole[first[back[i]]]), int(whole[i])) for i in repeats]
        self._add("note", f"{len(pairs)} images repeat an earlier one of this file: samples {_pairs(pairs)}")
        torn = [(one, other) for one, other in pairs if np.any(self._labels[one] != self._labels[other])]
        if torn:
            self._add("note", f"{len(torn)} of them under another label: samples {_pairs(torn)}")

    def compare(self, other: "FileCheck") -> list[Finding]:
        """After `decode` of both: differing classes, and shared images, which make an evaluation too optimistic."""
        findings = []
        if self.class_names and other.class_names and self.class_names != other.class_names:
            text = f"other classes: {_listed(self.class_names)} here, {_listed(other.class_names)} there"
            findings.append(Finding("FAULT", text))
        if not (self.images and other.images):
            return findings
        mine, theirs = np.flatnonzero(~self._damaged), np.flatnonzero(~other._damaged)
        _, i, j = np.intersect1d(self.digests[mine], other.digests[theirs], return_indices=True)
        if len(i):
            pairs = sorted(zip(mine[i].tolist(), theirs[j].tolist(), strict=True))
            findings.append(Finding("FAULT", f"{len(pairs)} images are in both: samples {_pairs(pairs)}"))
        else:
            findings.append(Finding("ok", "no image is in both"))
        return findings


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    return _listed([f"{one} = {other}" for one, other in pairs])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
