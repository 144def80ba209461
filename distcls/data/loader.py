"""Batches for training and evaluation: planned by the consumer, decoded ahead by threads, normalised on the device.

There is no producer thread: whoever asks for a batch also hands the freed slot to the pool, so that `batches_ahead`
batches are always being decoded. Threads and slots live as long as the loader; a stream that ends early cancels what it
had asked for.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch

from distcls.data.augment import Transform, Windows, draw_windows
from distcls.data.dataset import BetonDataset
from distcls.data.decode_cpu import decode_windows
from distcls.data.errors import DataError
from distcls.data.order import GlobalOrder
from distcls.data.pixels import Slot, make_slots
from distcls.errors import UserError


@dataclass(frozen=True)
class Batch:
    """One micro-batch of N images.

    Attributes:
        images: (N, 3, R, R), normalised, on the device, channels-last in memory.
        target: (N,) int64 on the device; -1 beyond `count`.
        index: (N,) int64 on the CPU, positions in the data set; -1 beyond `count`.
        count: how many are real: N in training; in evaluation the rest is padding.
    """

    images: torch.Tensor
    target: torch.Tensor
    index: torch.Tensor
    count: int


@dataclass(frozen=True)
class Plan:
    """What a batch is to hold: `indices` (N,) int64, and `windows(first, last)` for a part of them."""

    indices: np.ndarray
    windows: Callable[[int, int], Windows]


class Stream:
    """An iterator of batches, and the context manager that ends it: leaving it drops what is not yet decoded."""

    def __init__(self, loader: "_Loader", plans: Iterator[Plan]) -> None:
        if loader.streaming:
            raise RuntimeError(
                "this loader's previous stream is still open: leave its `with` block or close() it first"
            )
        loader.streaming = True
        self._loader = loader
        self._plans = plans
        self._ready: deque[tuple[Slot, Plan, list[Future[None]]]] = deque()
        self._open = True
        for slot in loader.slots:
            self._submit(slot)

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
        start = time.perf_counter()
        try:
            for future in futures:
                future.result()
            self._loader.wait_seconds += time.perf_counter() - start
            batch = self._loader.deliver(slot, plan)
        except BaseException:
            self.close()
            raise
        self._ready.popleft()
        self._submit(slot)
        return batch

    def _submit(self, slot: Slot) -> None:
        plan = next(self._plans, None)
        if plan is not None:
            self._ready.append((slot, plan, self._loader.decode(slot, plan)))

    def close(self) -> None:
        """May be called more than once."""
        if not self._open:
            return
        self._open = False
        futures = [future for _, _, futures in self._ready for future in futures]
        for future in futures:
            future.cancel()
        wait(futures)
        self._ready.clear()
        self._loader.streaming = False

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()


class _Loader:
    """What training and evaluation share: the slots, the threads, and the way from a plan to a batch."""

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
    ) -> None:
        if workers < 1:
            raise UserError(f"data.workers: got {workers}, expected 1 or more threads")
        self.dataset = dataset
        self.resolution = resolution
        self.batch_size = batch_size
        self.wait_seconds = 0.0
        self.workers = workers
        self.streaming = False
        self.slots = make_slots(
            batches_ahead, batch_size, resolution, mean=mean, std=std, device=torch.device(device), dtype=dtype
        )
        self._labels = dataset.samples["label"]
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="distcls-data")
        # Equal parts, as many as threads: batches queue up behind each other, so a slow part delays no thread.
        self._cuts = [round(batch_size * part / workers) for part in range(workers + 1)]

    def close(self) -> None:
        """End the threads. The loader cannot be used after that."""
        self._threads.shutdown(cancel_futures=True)

    def decode(self, slot: Slot, plan: Plan) -> list[Future[None]]:
        """Start to fill the slot."""
        cuts = [(first, last) for first, last in zip(self._cuts, self._cuts[1:], strict=False) if last > first]
        slot.begin(len(cuts))
        return [self._threads.submit(self._decode_part, slot, plan, first, last) for first, last in cuts]

    def _decode_part(self, slot: Slot, plan: Plan, first: int, last: int) -> None:
        slot.wait_writable()
        indices = plan.indices[first:last]
        status = np.empty(last - first, np.int32)
        windows = plan.windows(first, last).packed()
        decode_windows(self.dataset.samples, indices, windows, slot.pixels[first:last], status)
        bad = np.flatnonzero(status)
        if len(bad):
            raise DataError(
                f"{self.dataset.place_of(int(indices[bad[0]]))}: its JPEG data is damaged and cannot be decoded. "
                "Copy the file again, or write it again with `distcls data convert`."
            )
        slot.part_done()

    def deliver(self, slot: Slot, plan: Plan) -> Batch:
        """The filled slot as a batch; afterwards the slot may be filled again."""
        real = plan.indices >= 0
        target = np.where(real, self._labels[plan.indices], -1).astype(np.int64)
        images, labels = slot.deliver(torch.from_numpy(target))
        return Batch(images, labels, torch.from_numpy(plan.indices), int(real.sum()))


class TrainLoader(_Loader):
    """An endless, exactly repeatable sequence of micro-batches for one rank.

    Micro-batch m of A on rank r of W is chunk m * W + r of the global batch's A * W equal chunks, so that the chunks do
    not depend on how they are dealt to ranks and accumulation.

    Args:
        dataset: the images; its mean and std normalise them.
        resolution: side of the square output in pixels.
        transforms: constructed TRANSFORMS, applied in turn; none: the largest centred square.
        global_batch_size: images per optimizer step over all ranks and accumulation.
        accumulation_steps: micro-batches per step and rank.
        rank, world_size: this process's place among all.
        seed: the run's seed; order and augmentation follow from it.
        workers: decoding threads.
        device: where the batches go.
        dtype: of the images.
        batches_ahead: micro-batches in work or ready beyond the one in use.

    Attributes:
        steps_per_epoch: whole global batches in the data set.
        wait_seconds: how long the consumer has waited for batches in all.

    Raises:
        UserError: the global batch cannot be dealt evenly, or is larger than the data set.
    """

    def __init__(
        self,
        dataset: BetonDataset,
        *,
        resolution: int,
        transforms: Sequence[Transform],
        global_batch_size: int,
        accumulation_steps: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int,
        workers: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        batches_ahead: int = 3,
    ) -> None:
        self.parts = accumulation_steps * world_size
        if global_batch_size % self.parts:
            raise UserError(
                f"train.global_batch_size: got {global_batch_size}, expected a multiple of {self.parts} "
                f"({world_size} ranks x {accumulation_steps} accumulation steps)"
            )
        self.order = GlobalOrder(len(dataset), global_batch_size, seed)
        super().__init__(
            dataset,
            resolution=resolution,
            batch_size=global_batch_size // self.parts,
            mean=dataset.mean,
            std=dataset.std,
            workers=workers,
            device=device,
            dtype=dtype,
            batches_ahead=batches_ahead,
        )
        self.transforms = list(transforms)
        self.accumulation_steps = accumulation_steps
        self.rank = rank
        self.world_size = world_size

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def stream(self, first_step: int, last_step: int) -> Stream:
        """The micro-batches of steps [first_step, last_step), `accumulation_steps` of them for each, across epochs."""
        return Stream(self, self._plans(first_step, last_step))

    def _plans(self, first_step: int, last_step: int) -> Iterator[Plan]:
        for step in range(first_step, last_step):
            for micro in range(self.accumulation_steps):
                yield self._plan(step, micro * self.world_size + self.rank)

    def _plan(self, step: int, part: int) -> Plan:
        taken = self.order.part(step, part, self.parts)

        def windows(first: int, last: int) -> Windows:
            samples = self.dataset.samples[taken.indices[first:last]]
            start = Windows.centred(samples["height"], samples["width"], self.resolution)
            return draw_windows(self.transforms, start, self.order.seed, taken.epoch, taken.positions[first:last])

        return Plan(taken.indices, windows)


class EvalLoader(_Loader):
    """Every image exactly once over all ranks, in the data set's order, the same number of batches on every rank.

    Args:
        dataset: the images.
        resolution: side of the square output in pixels.
        crop_ratio: side of the centred square that is taken, as a share of the image's shorter side.
        batch_size: images per batch on each rank; the last batches are padded up to it.
        mean, std: per channel on the scale 0..1; the training set's. The data set's own where left out.
        rank, world_size: this process's place among all.
        workers, device, dtype, batches_ahead: as TrainLoader.
    """

    def __init__(
        self,
        dataset: BetonDataset,
        *,
        resolution: int,
        crop_ratio: float = 0.875,
        batch_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        batches_ahead: int = 3,
    ) -> None:
        super().__init__(
            dataset,
            resolution=resolution,
            batch_size=batch_size,
            mean=dataset.mean if mean is None else mean,
            std=dataset.std if std is None else std,
            workers=workers,
            device=device,
            dtype=dtype,
            batches_ahead=batches_ahead,
        )
        self.crop_ratio = crop_ratio
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches on every rank."""
        return -(-len(self.dataset) // (self.batch_size * self.world_size))

    def batches(self) -> Stream:
        return Stream(self, (self._plan(step) for step in range(len(self))))

    def _plan(self, step: int) -> Plan:
        start = (step * self.world_size + self.rank) * self.batch_size
        indices = np.arange(start, start + self.batch_size)
        indices[indices >= len(self.dataset)] = -1

        def windows(first: int, last: int) -> Windows:
            samples = self.dataset.samples[indices[first:last]]
            return Windows.centred(samples["height"], samples["width"], self.resolution, self.crop_ratio)

        return Plan(indices, windows)
