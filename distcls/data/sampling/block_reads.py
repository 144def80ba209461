"""Read-ahead and release of mapped files larger than memory: blocks are requested before use and dropped after it.

All of it is advice to the kernel: if ignored, pages are read later and kept longer, and the pixels are the same.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distcls.data.dataset import BetonDataset
from distcls.data.sampling.block_order import BlockOrder

_LIBC = ctypes.CDLL(None)
# A page fault also maps the neighbours within an aligned 64 KiB that are in the page cache (fault_around_bytes).
_AROUND = 1 << 16


class BlockReads:
    """Advises the kernel on behalf of one rank at each of its micro-batches, following a `BlockOrder`.

    Each window of blocks is requested as a whole, a quarter of a window before its first sample is decoded, so that the
    disk sees few large reads. After its last sample is decoded, its pages are released from this process and from the
    page cache. So a rank keeps 1.25 windows of each of its lanes in memory.

    Args:
        dataset: the files.
        order: of its samples.
        lag: steps after which a planned micro-batch is certain to have been decoded.
    """

    def __init__(self, dataset: BetonDataset, order: BlockOrder, lag: int) -> None:
        self._dataset = dataset
        self._order = order
        self._lag = lag
        self._ahead = max(order.block_size * order.window // 4, 1)
        self._planned: dict[int, int] = {}
        self._files = sorted(dataset.files(), key=lambda file: file[1])
        self._bases = [base for _, base, _ in self._files]
        for _, base, size in self._files:
            # No read-ahead around a page: the adjacent block is used much later.
            _madvise(base, size, mmap.MADV_RANDOM)

    def advise(self, step: int, lanes: np.ndarray) -> None:
        """Call when the micro-batch of `lanes` (n,), contiguous ones, is planned for global step `step`."""
        order = self._order
        if self._planned.get(int(lanes[0])) != step - 1:  # a stream starts here: request what is already due
            self._need(order.in_work(step, lanes))
            for soon in range(step + 1, step + self._ahead):
                self._need(order.in_work(soon, order.begins(soon, lanes)))
        self._planned[int(lanes[0])] = step
        self._need(order.in_work(step + self._ahead, order.begins(step + self._ahead, lanes)))
        if step > self._lag:
            done = step - self._lag - 1
            self._drop(order.in_work(done, order.ends(done, lanes)))

    def _need(self, indices: np.ndarray) -> None:
        for _, base, start, stop, _ in self._extents(indices):
            first = start // mmap.PAGESIZE * mmap.PAGESIZE
            _madvise(base + first, stop - first, mmap.MADV_WILLNEED)

    def _drop(self, indices: np.ndarray) -> None:
        for path, base, start, stop, size in self._extents(indices):
            first = max((base + start) // _AROUND * _AROUND, base)
            last = min(-(-(base + stop) // _AROUND) * _AROUND, base + size)
            _madvise(first, last - first, mmap.MADV_DONTNEED)
            # Also drop the pages from the page cache; those that another process maps stay.
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, first - base, last - first, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)

    def _extents(self, indices: np.ndarray) -> Iterator[tuple[Path, int, int, int, int]]:
        """Extents of the samples, adjacent ones merged: path, base address, start and end byte, size of the file."""
        rows = self._dataset.samples[indices]
        rows = rows[np.argsort(rows["address"], kind="stable")]
        starts = rows["address"].astype(np.int64)
        stops = np.maximum.accumulate(starts + rows["size"])
        cuts = np.flatnonzero(starts[1:] - stops[:-1] > _AROUND) + 1
        for start, stop in zip(starts[[0, *cuts]], stops[[*(cuts - 1), -1]], strict=True) if len(rows) else ():
            path, base, size = self._files[np.searchsorted(self._bases, start, side="right") - 1]
            yield path, base, int(start) - base, int(stop) - base, size


def _madvise(address: int, length: int, advice: int) -> None:
    # Not mmap.madvise, which holds the GIL while the kernel starts to read.
    _LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), ctypes.c_int(advice))
