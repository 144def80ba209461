"""FFCV's DatasetWriter without its hang: a worker that fails ends the conversion, with the name of the image."""

import multiprocessing
import queue
from collections.abc import Callable
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.utils import chunks
from ffcv.writer import DatasetWriter, worker_job_indexed_dataset

from distcls.data.errors import DataError
from distcls.data.multi_hot import pack
from distcls.data.sources import Source

# Images are read by processes that inherit the source, which need not be picklable.
_FORK = multiprocessing.get_context("fork")


class Recorder:
    """A source as FFCV's workers see it: notes each image's statistics where the parent can read them.

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
        """The image, and its label or the words of its labels."""
        self.current = int(index)
        image, label = self._source[self.current]
        # The writer draws which images to compress from numpy's global generator: the same choice for any number of
        # workers.
        np.random.seed(self.current)
        pixels = image.reshape(-1, 3).astype(np.float32) / np.float32(255)
        self._moments[index] = pixels.mean(0), np.square(pixels).mean(0)
        return (image, *pack(label)) if self._source.multi_label else (image, label)

    def name(self) -> str:
        return self._source.name_of(self.current)


def _work(errors: Any, recorder: Recorder, arguments: tuple[Any, ...]) -> None:
    import cv2

    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork.
    try:
        worker_job_indexed_dataset(*arguments)
    except BaseException as error:
        text = str(error) if isinstance(error, DataError) else f"{recorder.name()}: {type(error).__name__}: {error}"
        if isinstance(error, ValueError) and "page size" in str(error):
            text += ". The image is larger than a page of the file: use --max-resolution, or --write-mode jpg"
        errors.put(text)
        raise SystemExit(1) from None


class BetonWriter(DatasetWriter):
    """FFCV's writer of images with their labels, supervised.

    Args:
        path: the file to write.
        image: how images are stored.
        words: int fields for the labels: more than one only for a multi-label source.
        workers: processes.
        progress: called now and then with the number of images done.
    """

    def __init__(
        self, path: str, image: RGBImageField, words: int, workers: int, progress: Callable[[int], None]
    ) -> None:
        labels = {f"label_{number}" if number else "label": IntField() for number in range(words)}
        super().__init__(path, {"image": image, **labels}, num_workers=workers)
        self._progress = progress

    def write(self, recorder: Recorder, page_size: int) -> None:
        """Write all images.

        Raises:
            DataError: an image could not be read or stored, or a worker died.
        """
        self.page_size = page_size
        self.num_samples = len(recorder)
        self.prepare()
        processes = []
        try:
            work, done, errors = _FORK.Queue(), _FORK.Value("Q", 0), _FORK.Queue()
            allocations: Any = _FORK.Queue()
            for chunk in chunks(list(enumerate(range(self.num_samples))), 100):
                work.put(chunk)
            for _ in range(self.num_workers):
                work.put(None)
            allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
            arguments = (
                work,
                self.metadata_sm,
                self.metadata_type,
                self.fields,
                allocator,
                done,
                allocations,
                recorder,
            )
            processes = [
                _FORK.Process(target=_work, args=(errors, recorder, arguments)) for _ in range(self.num_workers)
            ]
            for process in processes:
                process.start()
            table: list[Any] = []
            for _ in processes:
                table += self._result(allocations, errors, processes, done)
            for process in processes:
                process.join()
            self._progress(self.num_samples)
            self.finalize(table)
        finally:
            for process in processes:
                process.kill()
                process.join()
            self.metadata_sm.close()
            self.metadata_sm.unlink()

    def _result(self, allocations: Any, errors: Any, processes: list[Any], done: Any) -> list[Any]:
        """One worker's allocations, as soon as it has finished."""
        while True:
            try:
                return allocations.get(timeout=0.1)
            except queue.Empty:
                self._progress(done.value)
            dead = [process.exitcode for process in processes if process.exitcode]
            if dead:
                try:
                    raise DataError(errors.get(timeout=1))
                except queue.Empty:
                    raise DataError(
                        f"{self.fname}: a writing process ended with exit code {dead[0]} and no message "
                        "(-9: killed, often for memory: try fewer --workers)"
                    ) from None
