"""Slots: the buffers that batches are decoded into; on a CPU uint8 images, normalised on delivery."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from distcls.data.decoding.decode_cpu import decode_windows
from distcls.data.decoding.interpolation import Interpolation
from distcls.data.decoding.jpeg_window import WindowDecoder
from distcls.data.decoding.plan import Plan


class Slot(Protocol):
    """Buffer for one batch: the consumer begins it, threads fill it in parts, the consumer delivers it."""

    def begin(self, plan: Plan, parts: int) -> None:
        """Consumer: called before `parts` parts are handed to threads."""

    def fill(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        """Thread: decode images [first, last) of the plan. Returns the decoder's status (last - first,) int32."""
        ...

    def decode_on_device(self, samples: np.ndarray) -> np.ndarray:
        """Thread: decode the images that the plan marks `on_device`. Returns the status (N,) int32."""
        ...

    def part_done(self) -> None:
        """Thread: called after it has filled its part without an error."""

    def deliver(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Consumer, after all parts: normalised images (N, 3, R, R), newly allocated, and the plan's target."""
        ...


def make_slots(
    number: int,
    batch_size: int,
    resolution: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    dtype: torch.dtype,
    interpolation: Interpolation,
    jpeg: WindowDecoder,
) -> list[Slot]:
    """`number` slots for a device; mean and std are per channel on the scale 0..1."""
    if device.type == "cuda":
        from distcls.data.decoding.packed import CudaTransfer, PackedSlot

        copies = torch.cuda.Stream(device)
        return [
            PackedSlot(
                batch_size,
                resolution,
                mean=mean,
                std=std,
                dtype=dtype,
                interpolation=interpolation,
                jpeg=jpeg,
                transfer=CudaTransfer(device, copies),
            )
            for _ in range(number)
        ]
    normalise = Normalise(mean, std, dtype)
    return [HostSlot(batch_size, resolution, normalise, interpolation, jpeg) for _ in range(number)]


class Normalise:
    """uint8 (N, R, R, 3) -> (N, 3, R, R) in channels-last memory, (x / 255 - mean) / std."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> None:
        # Convert to half precision last: with pixel values up to 255 and a small std, earlier would lose bits.
        self.dtype = dtype
        self.working = torch.promote_types(dtype, torch.float32)
        self.mean = (torch.tensor(mean, dtype=torch.float64) * 255).to(self.working).view(1, 3, 1, 1)
        self.scale = (1 / (torch.tensor(std, dtype=torch.float64) * 255)).to(self.working).view(1, 3, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).to(self.working)
        return images.sub_(self.mean).mul_(self.scale).to(self.dtype)


class HostSlot:
    """For training on a CPU: resized uint8 images at up to the slot's resolution."""

    def __init__(
        self, batch_size: int, resolution: int, normalise: Normalise, interpolation: Interpolation, jpeg: WindowDecoder
    ) -> None:
        self._interpolation: Interpolation = interpolation
        self._jpeg = jpeg
        self._room = torch.empty(batch_size * resolution * resolution * 3, dtype=torch.uint8)
        self._normalise = normalise

    def begin(self, plan: Plan, parts: int) -> None:
        self._plan = plan
        number, size = len(plan.indices), plan.resolution
        self._tensor = self._room[: number * size * size * 3].view(number, size, size, 3)
        self._pixels = self._tensor.numpy()

    def fill(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        status = np.empty(last - first, np.int32)
        plan, part = self._plan, slice(first, last)
        decode_windows(
            samples,
            plan.indices[part],
            plan.windows[part],
            self._jpeg.address,
            self._interpolation,
            self._pixels[part],
            status,
        )
        return status

    def decode_on_device(self, samples: np.ndarray) -> np.ndarray:
        raise AssertionError("a CPU has no decoder of its own")

    def part_done(self) -> None: ...

    def deliver(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._normalise(self._tensor), torch.from_numpy(self._plan.target)
