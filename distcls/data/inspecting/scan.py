"""Visits every image of a .beton with several threads, for the commands that read all pixels."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from distcls.data.beton.bus_error import guard, lost_pages

_CHUNK = 64


def scan(number: int, visit: Callable[[int], None], workers: int, progress: Callable[[int], None]) -> None:
    """Call visit(i) for i in range(number) in `workers` threads, and progress(number done) in this thread."""

    def chunk(start: int) -> int:
        stop = min(start + _CHUNK, number)
        for index in range(start, stop):
            visit(index)
        return stop - start

    done = 0
    with ThreadPoolExecutor(workers) as threads:
        for finished in threads.map(chunk, range(0, number, _CHUNK)):
            done += finished
            progress(done)


class Guarded:
    """A mapped file whose reads always return, even if the file is truncated meanwhile or its disk fails."""

    def __init__(self, path: Path, file: np.memmap) -> None:
        self._path, self._bytes, self._number = path, len(file), guard(file)

    def what_happened(self) -> str | None:
        """After reading: why the bytes read may differ from those stored; None if nothing indicates that."""
        size = self._path.stat().st_size if self._path.is_file() else 0
        if size != self._bytes:
            return f"went from {self._bytes} to {size} bytes while it was read: try again when nobody writes to it"
        if lost_pages(self._number):
            return "some of its bytes cannot be read: the disk or its server fails (`dmesg` may say more)"
        return None


def stored_bytes(file: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The bytes that the mapped `file` stores for one row of its table, (size,) uint8."""
    start = int(sample["address"]) - file.ctypes.data
    return file[start : start + int(sample["size"])]


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from the JPEG's frame header; None if it has no such header."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        # SOF0..SOF15, except DHT, JPG and DAC, whose codes lie in the same range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
