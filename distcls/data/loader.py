"""The two loaders. Training: an endless, exactly repeatable sequence. Evaluation: every image exactly once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from distcls.data.augmenting.draws import in_share
from distcls.data.augmenting.mix import Mix, Mixing
from distcls.data.augmenting.pixels import PixelStage
from distcls.data.augmenting.resolution import Resolution
from distcls.data.augmenting.windows import OnDevice, Transform, Windows, draw_windows
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.interpolation import Interpolation
from distcls.data.decoding.jpeg_window import WindowDecoder
from distcls.data.decoding.plan import Finish, Plan
from distcls.data.sampling.block_order import BlockOrder
from distcls.data.sampling.block_reads import BlockReads
from distcls.data.sampling.order import GlobalOrder, Slice
from distcls.data.stream import Loader, Stream
from distcls.errors import ArgumentError


class TrainLoader(Loader):
    """An endless, exactly repeatable sequence of micro-batches for one rank.

    The global batch consists of A * W equal chunks for A accumulation steps and W ranks. Micro-batch m of rank r is
    chunk m * W + r, so that the chunks do not depend on how they are dealt to ranks and accumulation steps.

    Args:
        dataset: the images; its mean and std normalise them.
        resolution: side of the square images in pixels, or a schedule of it over epochs.
        transforms: constructed TRANSFORMS, applied in turn. Without any, the largest centred square is taken.
        mixes: constructed MIXES; each step takes one at random.
        global_batch_size: images per optimizer step over all ranks and accumulation.
        accumulation_steps: micro-batches per step and rank.
        rank, world_size: this process's place among all.
        seed: the run's seed; order and augmentation follow from it.
        balanced: each class occurs equally often in an epoch, see order.BalancedOrder.
        repeats: how often each image of an epoch occurs in it, see order.GlobalOrder.
        block_size: for data larger than memory: the number of images that are read together, see
            block_order.BlockOrder. None: all images are shuffled.
        block_window: number of blocks that are mixed with each other.
        workers: decoding threads.
        device: where the batches go.
        dtype: of the images.
        batches_ahead: micro-batches being decoded or ready, beside the one in use.
        interpolation: how crops are resized, see interpolation.py.
        jpeg: how JPEGs are decoded; None: the best way that is installed.
        gpu_decode_share: share of the data set's JPEGs that the GPU decodes.

    Attributes:
        steps_per_epoch: whole global batches in the data set.

    Raises:
        UserError: the global batch cannot be dealt evenly (with mixing, into even micro-batches), or is larger than
            the data set; an image is too small for a crop.
    """

    def __init__(
        self,
        dataset: BetonDataset,
        *,
        resolution: int | Resolution,
        transforms: Sequence[Transform | OnDevice],
        mixes: Sequence[Mix] = (),
        global_batch_size: int,
        accumulation_steps: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int,
        balanced: bool = False,
        repeats: int = 1,
        block_size: int | None = None,
        block_window: int = 8,
        workers: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        batches_ahead: int = 3,
        interpolation: Interpolation = "bilinear",
        jpeg: WindowDecoder | None = None,
        gpu_decode_share: float = 0.0,
    ) -> None:
        self._schedule = resolution if isinstance(resolution, Resolution) else Resolution.constant(resolution)
        self.parts = accumulation_steps * world_size
        if global_batch_size % self.parts:
            raise ArgumentError(
                "train.global_batch_size",
                f"got {global_batch_size}, expected a multiple of {self.parts} "
                f"({world_size} ranks x {accumulation_steps} accumulation steps)",
            )
        if mixes and global_batch_size // self.parts % 2:
            raise ArgumentError(
                "data.mix",
                f"got micro-batches of {global_batch_size // self.parts} images, expected an even number: "
                "images are mixed in pairs",
            )
        balance = dataset.samples["label"] if balanced else None
        blocks = None
        if block_size is not None:
            blocks = BlockOrder(len(dataset), global_batch_size, seed, block_size=block_size, window=block_window)
        self.order = GlobalOrder(len(dataset), global_batch_size, seed, balance, repeats=repeats, blocks=blocks)
        self._reads = BlockReads(dataset, blocks, lag=batches_ahead) if blocks else None
        self._pixels = PixelStage(transforms, seed=seed, mean=dataset.mean, std=dataset.std, dtype=dtype)
        raw = self._pixels.takes_raw
        super().__init__(
            dataset,
            resolution=self._schedule.largest,
            batch_size=global_batch_size // self.parts,
            mean=(0, 0, 0) if raw else dataset.mean,
            std=(1 / 255,) * 3 if raw else dataset.std,
            workers=workers,
            device=device,
            dtype=torch.promote_types(dtype, torch.float32) if raw else dtype,
            batches_ahead=batches_ahead,
            interpolation=interpolation,
            jpeg=jpeg,
        )
        self._gpu_decode_share = gpu_decode_share
        self.transforms = list(transforms)
        self._try_the_smallest(seed)
        self._mixing = Mixing(mixes, seed=seed, num_classes=dataset.num_classes) if mixes else None
        self.accumulation_steps = accumulation_steps
        self.rank = rank
        self.world_size = world_size

    def _try_the_smallest(self, seed: int) -> None:
        """Try the transforms on the smallest images: one that is too small is reported now, not days later."""
        samples = self.dataset.samples
        least = samples[[samples["height"].argmin(), samples["width"].argmin()]]
        draw_windows(
            self.transforms, Windows.centred(least["height"], least["width"], self.resolution), seed, 0, np.arange(2)
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def resolution_at(self, step: int) -> int:
        """Pixels per side of the images of a step."""
        return self._schedule.at(step // self.steps_per_epoch)

    def stream(self, first_step: int, last_step: int) -> Stream:
        """The micro-batches of steps [first_step, last_step), `accumulation_steps` for each step, across epochs."""
        return Stream(self, self._plans(first_step, last_step))

    def _plans(self, first_step: int, last_step: int) -> Iterator[Plan]:
        for step in range(first_step, last_step):
            for micro in range(self.accumulation_steps):
                yield self._plan(step, micro * self.world_size + self.rank)

    def _plan(self, step: int, part: int) -> Plan:
        taken = self.order.part(step, part, self.parts)
        if self._reads is not None:
            self._threads.submit(
                self._reads.advise, step, np.arange(part * self.batch_size, (part + 1) * self.batch_size)
            )
        samples = self.dataset.samples[taken.indices]
        resolution = self._schedule.at(taken.epoch)
        windows = Windows.centred(samples["height"], samples["width"], resolution)
        draw_windows(self.transforms, windows, self.order.seed, taken.epoch, taken.positions)
        share = self._gpu_decode_share
        plan = Plan.of(
            samples,
            taken.indices,
            windows,
            self.dataset.targets(taken.indices),
            self.interpolation,
            in_share(taken.indices, share) if share else None,
        )
        return replace(plan, finish=self._finish(step, taken, resolution))

    def _finish(self, step: int, taken: Slice, resolution: int) -> Finish | None:
        """Draw what the device must do with a batch after decoding."""
        if not (self._pixels or self._mixing):
            return None
        pixels = self._pixels.draw(taken.epoch, taken.positions, resolution)
        mix = self._mixing.draw(step, resolution) if self._mixing else None

        def finish(images: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            images = pixels(images)
            return mix(images, target) if mix else (images, target)

        return finish


class EvalLoader(Loader):
    """Every image exactly once over all ranks, in the data set's order, the same number of batches on every rank.

    Args:
        dataset: the images.
        resolution: side of the square output in pixels.
        crop_ratio: side of the centre crop, as a fraction of the image's shorter side.
        batch_size: images per batch on each rank; the last batches are padded up to it.
        mean, std: of the training set, per channel on the scale 0..1. None: those of `dataset`.
        rank, world_size: this process's place among all.
        workers, device, dtype, batches_ahead, interpolation, jpeg: as TrainLoader.
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
        interpolation: Interpolation = "bilinear",
        jpeg: WindowDecoder | None = None,
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
            interpolation=interpolation,
            jpeg=jpeg,
        )
        self.crop_ratio = crop_ratio
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches on every rank."""
        return -(-len(self.dataset) // (self.batch_size * self.world_size))

    @property
    def protocol(self) -> dict[str, float | str]:
        """How images are prepared, to be recorded with a result."""
        return {
            "resolution": self.resolution,
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
        }

    def batches(self) -> Stream:
        return Stream(self, (self._plan(step) for step in range(len(self))))

    def _plan(self, step: int) -> Plan:
        start = (step * self.world_size + self.rank) * self.batch_size
        indices = np.arange(start, start + self.batch_size)
        indices[indices >= len(self.dataset)] = -1
        samples = self.dataset.samples[indices]
        windows = Windows.centred(samples["height"], samples["width"], self.resolution, self.crop_ratio)
        return Plan.of(samples, indices, windows, self.dataset.targets(indices), self.interpolation)
