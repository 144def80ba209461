"""Writer of FFCV's file format with several processes; the file's bytes do not depend on their number.

FFCV's own DatasetWriter gives pages to whichever worker asks first, so that repeating a conversion gives a different
file and fingerprint, and it hangs when a worker fails. Here workers encode chunks of images in parallel, then take
turns, in chunk order, to allocate the bytes' positions; writing is parallel again. A worker that fails ends the
conversion with an error that names the image.
"""

import ctypes
import mmap
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.types import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    TYPE_ID_HANDLER,
    FieldDescType,
    HeaderType,
    get_metadata_type,
)

from distcls.data.beton.multi_hot import pack
from distcls.data.converting.encoding import refuse_sides
from distcls.data.converting.sources import Source
from distcls.data.errors import DataError

# Fork, so that the workers inherit the source, which need not be picklable.
_FORK = multiprocessing.get_context("fork")
_CHUNK = 64  # images that a worker encodes before writing them; below, the limit on their bytes
_CHUNK_BYTES = 1 << 28
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Recorder:
    """A source wrapped for the workers: records each image's statistics in memory shared with the parent.

    Args:
        moments: (N, 2, 3) float32 shared between processes: mean and mean square per channel on the scale 0..1.
    """

    def __init__(self, source: Source, moments: np.ndarray) -> None:
        self._source = source
        self._moments = moments
        self.current = 0

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """The image and its label, or for multi-label data the packed words of its labels."""
        self.current = int(index)
        image, label = self._source[self.current]
        # FFCV's field draws which images to compress from numpy's global generator: seeding it per image makes the
        # choice independent of the number of workers.
        np.random.seed(self.current)
        pixels = image.reshape(-1, 3)
        # Integer sums: float32 sums are off by a hundredth for a photo of 24 million pixels.
        squares = np.einsum("ij,ij->j", pixels, pixels, dtype=np.uint64, casting="safe")
        self._moments[index] = pixels.mean(0, dtype=np.float64) / 255, squares / len(pixels) / 255**2
        return (image, *pack(label)) if self._source.multi_label else (image, label)

    def name(self) -> str:
        return self._source.name_of(self.current)


def _shared(count: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (count,) in memory shared with processes forked later."""
    return np.frombuffer(mmap.mmap(-1, max(count, 1) * dtype.itemsize), dtype)[:count]


def _aligned(offset: int, page_size: int) -> int:
    return -(-offset // page_size) * page_size


class BetonWriter:
    """Writes images and labels with worker processes that it supervises.

    Args:
        file: descriptor of an empty file, open for reading and writing.
        image: how images are stored.
        words: number of int fields for the labels; more than one only for a multi-label source.
        workers: processes.
        skip: leave out images that cannot be read or stored, instead of stopping at the first.
        progress: called now and then with the number of images done.

    Attributes:
        skipped: after `write`, (index, error message) of the images left out, sorted by index.
    """

    def __init__(
        self,
        file: int,
        image: RGBImageField,
        words: int,
        workers: int,
        *,
        skip: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._file = file
        labels = {f"label_{number}" if number else "label": IntField() for number in range(words)}
        self._fields = {"image": image, **labels}
        self._workers = workers
        self._skip = skip
        self._progress = progress
        self.skipped: list[tuple[int, str]] = []

    def write(self, recorder: Recorder, page_size: int) -> None:
        """Write all images, in pages of `page_size` bytes that no image crosses.

        Raises:
            DataError: an image could not be read or stored, or a worker died.
            OSError: the file cannot be written.
        """
        number = len(recorder)
        self._recorder, self._page_size = recorder, page_size
        self._chunk = min(_CHUNK, max(_CHUNK_BYTES // page_size, 1))
        kind = get_metadata_type(list(self._fields.values()))
        records_at = HeaderType.itemsize + len(self._fields) * FieldDescType.itemsize
        data_at = _aligned(records_at + number * kind.itemsize, page_size)
        self._records, self._allocations = _shared(number, kind), _shared(number, ALLOC_TABLE_TYPE)
        # The number of the next chunk to place, the samples placed so far, and the offset where the next may begin.
        self._turn, self._placed, self._end = _shared(3, np.dtype(np.int64)).reshape(3, 1)
        self._end[0] = data_at
        self._change = _FORK.Condition()
        self._messages: Any = _FORK.Queue()
        processes = [_FORK.Process(target=self._work, args=(os.getpid(),)) for _ in range(self._workers)]
        self._next_chunk = _FORK.Value("q", 0)
        started = []
        try:
            for process in processes:
                process.start()
                started.append(process)
            self._supervise(processes, number)
        finally:
            for process in started:
                process.kill()
                process.join()
        self.skipped.sort()
        self._finish(records_at, int(self._placed[0]))

    def _supervise(self, processes: list[Any], number: int) -> None:
        """Wait until all workers are done; raise the error that one of them reports."""
        done = finished = 0
        while finished < len(processes):
            try:
                what, value = self._messages.get(timeout=0.1)
            except queue.Empty:
                dead = [process.exitcode for process in processes if process.exitcode]
                if dead and self._messages.empty():
                    raise DataError(
                        f"a writing process ended with exit code {dead[0]} and no message "
                        "(-9: killed, often for memory: try fewer --workers)"
                    ) from None
                continue
            if what == "done":
                done += value
                self._progress(done)
            elif what == "skipped":
                self.skipped.append(value)
            elif what == "finished":
                finished += 1
            else:
                raise OSError(*value) if what == "system" else DataError(value)
        if len(self.skipped) == number:
            raise DataError(f"none of the {number} images can be read and stored; the first: {min(self.skipped)[1]}")

    def _work(self, parent: int) -> None:
        """Body of a worker process: encode and write chunks until none is left. It is killed if its parent dies."""
        import cv2

        # A worker that outlived a killed conversion would keep its lock.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return
        cv2.setNumThreads(0)  # OpenCV's thread pool does not survive a fork.
        number = len(self._records)
        try:
            while True:
                with self._next_chunk.get_lock():
                    chunk = self._next_chunk.value
                    self._next_chunk.value += 1
                if chunk * self._chunk >= number:
                    break
                indices = range(chunk * self._chunk, min((chunk + 1) * self._chunk, number))
                self._place(chunk, *self._encode(indices))
                self._messages.put(("done", len(indices)))
            self._messages.put(("finished", None))
        except DataError as error:
            self._messages.put(("fault", str(error)))
        except OSError as error:
            self._messages.put(("system", (error.errno, error.strerror)))
        except BaseException as error:
            self._messages.put(("fault", f"{self._recorder.name()}: {type(error).__name__}: {error}"))

    def _encode(self, indices: range) -> tuple[np.ndarray, list[np.ndarray]]:
        """The records (n,) of the images that can be read and stored, and the encoded bytes of each."""
        records, stored = np.zeros(len(indices), self._records.dtype), []

        def allocate(size: int) -> tuple[int, np.ndarray]:
            stored.append(np.empty(size, np.uint8))
            return 0, stored[-1]

        for index in indices:
            record, kept = records[len(stored) : len(stored) + 1], len(stored)
            try:
                values = self._recorder[index]
                refuse_sides(self._fields["image"], self._recorder.name(), *values[0].shape[:2])
                for column, field, value in zip(records.dtype.names or (), self._fields.values(), values, strict=True):
                    field.encode(record[column], value, allocate)
                if stored[-1].nbytes > self._page_size:
                    raise DataError(
                        f"{self._recorder.name()}: its {stored[-1].nbytes} bytes are more than a page of the file, "
                        f"{self._page_size}: use --max-resolution, or --write-mode jpg"
                    )
            except DataError as error:
                if not self._skip:
                    raise
                del stored[kept:]
                self._messages.put(("skipped", (index, str(error))))
        return records[: len(stored)], stored

    def _place(self, chunk: int, records: np.ndarray, stored: list[np.ndarray]) -> None:
        """Wait for the chunk's turn, allocate its images' positions, and write the images."""
        pointers = np.zeros(len(stored), np.uint64)
        with self._change:
            while self._turn[0] != chunk:
                self._change.wait()
            end = int(self._end[0])
            for i, data in enumerate(stored):
                if data.nbytes > self._page_size - end % self._page_size:
                    end = _aligned(end, self._page_size)
                pointers[i] = end
                end += data.nbytes
            first = int(self._placed[0])
            self._end[0], self._placed[0], self._turn[0] = end, first + len(stored), chunk + 1
            self._change.notify_all()
        records["f0"]["data_ptr"] = pointers
        mine = slice(first, first + len(stored))
        self._records[mine] = records
        table = self._allocations[mine]
        table["sample_id"], table["ptr"] = np.arange(first, first + len(stored)), pointers
        table["size"] = [data.nbytes for data in stored]
        for pointer, data in zip(pointers.tolist(), stored, strict=True):
            _write_at(self._file, data, pointer)

    def _finish(self, records_at: int, samples: int) -> None:
        """Write everything but the images; the header last, which marks the file as complete."""
        fields = np.zeros(len(self._fields), FieldDescType)
        numbers = {handler: number for number, handler in TYPE_ID_HANDLER.items()}
        for row, (name, field) in zip(fields, self._fields.items(), strict=True):
            row["type_id"] = numbers[type(field)]
            row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
            row["arguments"] = field.to_binary()[0]
        table_at = _aligned(int(self._end[0]), self._page_size)
        header = np.array(
            [(CURRENT_VERSION, len(fields), self._page_size, samples, table_at)],
            HeaderType,
        )
        _write_at(self._file, self._allocations[:samples], table_at)
        _write_at(self._file, self._records[:samples], records_at)
        _write_at(self._file, fields, HeaderType.itemsize)
        _write_at(self._file, header, 0)


def _write_at(file: int, array: np.ndarray, offset: int) -> None:
    """Write the whole array: one pwrite call writes at most 2 GiB, and less if the disk is nearly full."""
    data = memoryview(array.tobytes())
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
