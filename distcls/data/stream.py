"""From plans to batches: decoded ahead by threads, normalised on the device, handed out in order.

There is no producer thread: asking for a batch also hands the slot that became free to the thread pool, so that
`batches_ahead` batches are always being decoded. Threads and slots live as long as the loader; a stream that ends early
cancels the work that it had submitted.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch

from distcls.data.dataset import BetonDataset
from distcls.data.decoding.interpolation import Interpolation
from distcls.data.decoding.jpeg_window import WindowDecoder, window_decoder
from distcls.data.decoding.plan import Plan
from distcls.data.decoding.slots import Slot, make_slots
from distcls.data.errors import DataError
from distcls.errors import ArgumentError


@dataclass(frozen=True)
class Batch:
    """One micro-batch of N images.

    Attributes:
        images: (N, 3, R, R), normalised, on the device, channels-last in memory.
        target: on the device. (N,) int64, -1 beyond `count`; for multi-label data (N, C) float32; with mixing (N, C)
            soft labels.
        index: (N,) int64 on the CPU, indices into the data set; -1 beyond `count`.
        count: number of real images. In training N; in evaluation the rest is padding.
    """

    images: torch.Tensor
    target: torch.Tensor
    index: torch.Tensor
    count: int


class Stream:
    """An iterator of batches, and a context manager: leaving it drops what is not decoded yet."""

    def __init__(self, loader: "Loader", plans: Iterator[Plan]) -> None:
        if loader.streaming:
            raise RuntimeError(
                "this loader's previous stream is still open: leave its `with` block or close() it first"
            )
        wait(loader.unfinished)
        loader.streaming = True
        self._loader = loader
        self._plans = plans
        self._ready: deque[tuple[Slot, Plan, list[Future[None]]]] = deque()
        self._open = True
        try:
            for slot in loader.slots:
                self._submit(slot)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        if not self._ready:
            self.close()
            raise StopIteration
        slot, plan, futures = self._ready[0]
        self._loader.mark("data")
        try:
            self._loader.dataset.check_unchanged()
            for future in futures:
                future.result()
            self._loader.dataset.check_readable()
            self._loader.mark("copy")
            images, target = slot.deliver()
            if plan.finish is not None:
                images, target = plan.finish(images, target)
            self._ready.popleft()
            self._submit(slot)
            self._loader.mark("compute")
        except BaseException:
            self.close()
            raise
        batch = Batch(images, target, torch.from_numpy(plan.indices), int((plan.indices >= 0).sum()))
        if self._loader.watch is not None:
            self._loader.watch(batch)
        return batch

    def _submit(self, slot: Slot) -> None:
        plan = next(self._plans, None)
        if plan is not None:
            self._ready.append((slot, plan, self._loader.decode(slot, plan)))

    def close(self) -> None:
        """May be called more than once."""
        self._cancel()
        wait(self._loader.unfinished)

    def _cancel(self) -> None:
        if not self._open:
            return
        self._open = False
        futures = [future for _, _, futures in self._ready for future in futures]
        self._loader.unfinished = [future for future in futures if not future.cancel()]
        self._ready.clear()
        self._loader.streaming = False

    def __del__(self) -> None:
        # The garbage collector may run in a decoding thread, which must not wait for itself.
        if getattr(self, "_open", False):
            self._cancel()


class Loader:
    """The base of both loaders: slots, threads, and the way from a plan to a batch."""

    def __init__(
        self,
        dataset: BetonDataset,
        *,
        resolution: int,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        workers: int,
        device: torch.device | str,
        dtype: torch.dtype,
        batches_ahead: int,
        interpolation: Interpolation,
        jpeg: WindowDecoder | None,
    ) -> None:
        if workers < 1:
            raise ArgumentError("data.workers", f"got {workers}, expected 1 or more threads")
        dataset.guard()
        self.dataset = dataset
        self.resolution = resolution
        self.batch_size = batch_size
        #: called at the start of each phase: "data" (waiting for a batch), "copy" (to the device), "compute"
        self.mark: Callable[[str], None] = lambda phase: None
        self.workers = workers
        self.streaming = False
        self.unfinished: list[Future[None]] = []  # what the previous stream could not cancel
        self.watch: Callable[[Batch], None] | None = None  # called with every batch that is handed out
        self.interpolation: Interpolation = interpolation
        self.slots = make_slots(
            batches_ahead,
            batch_size,
            resolution,
            mean=mean,
            std=std,
            device=torch.device(device),
            dtype=dtype,
            interpolation=interpolation,
            jpeg=jpeg or window_decoder(),
        )
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="distcls-data")
        # One part of equal size per thread. Batches queue up, so a slow part delays no other thread.
        self._cuts = [round(batch_size * part / workers) for part in range(workers + 1)]

    def close(self) -> None:
        """End the threads. The loader cannot be used after that."""
        self._threads.shutdown(cancel_futures=True)

    def decode(self, slot: Slot, plan: Plan) -> list[Future[None]]:
        """Start to decode the plan into the slot."""
        cuts = [(first, last) for first, last in zip(self._cuts, self._cuts[1:], strict=False) if last > first]
        apart = plan.on_device is not None and bool(plan.on_device.any())
        slot.begin(plan, len(cuts) + apart)
        futures = [self._threads.submit(self._decode_part, slot, plan, first, last) for first, last in cuts]
        return [self._threads.submit(self._decode_on_device, slot, plan), *futures] if apart else futures

    def _decode_on_device(self, slot: Slot, plan: Plan) -> None:
        self._refuse_damaged(plan.indices[np.flatnonzero(slot.decode_on_device(self.dataset.samples))])
        slot.part_done()

    def _decode_part(self, slot: Slot, plan: Plan, first: int, last: int) -> None:
        status = slot.fill(self.dataset.samples, first, last)
        self._refuse_damaged(plan.indices[first + np.flatnonzero(status)])
        slot.part_done()

    def _refuse_damaged(self, indices: np.ndarray) -> None:
        if len(indices):
            self.dataset.check_readable()
            self.dataset.check_unchanged(every=0)
            raise DataError(
                f"{self.dataset.place_of(int(indices[0]))}: its JPEG data is damaged and cannot be decoded. "
                "Copy the file again, or write it again with `distcls data convert`."
            )
