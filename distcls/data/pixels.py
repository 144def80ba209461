"""The buffers that decoded pixels wait in, and how they become normalised images on a device. uint8 crosses over."""

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch


class Slot(Protocol):
    """Room for one batch. `pixels` (N, R, R, 3) uint8 is filled by threads in parts, then delivered by the consumer."""

    pixels: np.ndarray

    def begin(self, parts: int) -> None:
        """The consumer, before the parts are handed to threads."""

    def wait_writable(self) -> None:
        """A thread, before it writes: the device may still be reading."""

    def part_done(self) -> None:
        """A thread, after it wrote its part."""

    def deliver(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The consumer, after the last part: normalised images (N, 3, R, R) and target (N,), newly allocated."""
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
) -> list[Slot]:
    """`number` slots for a device; mean and std are per channel on the scale 0..1."""
    shape = (batch_size, resolution, resolution, 3)
    normalise = Normalise(mean, std, device, dtype)
    if device.type != "cuda":
        return [HostSlot(shape, normalise) for _ in range(number)]
    copies = torch.cuda.Stream(device)
    return [CudaSlot(shape, normalise, device, copies) for _ in range(number)]


class Normalise:
    """uint8 (N, R, R, 3) -> (N, 3, R, R) in channels-last memory, (x / 255 - mean) / std."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device, dtype: torch.dtype) -> None:
        # Half precision is reached last: pixel values up to 255 and a small std would lose bits on the way.
        self.dtype = dtype
        self.working = torch.promote_types(dtype, torch.float32)
        self.mean = (torch.tensor(mean, dtype=torch.float64) * 255).to(device, self.working).view(1, 3, 1, 1)
        self.scale = (1 / (torch.tensor(std, dtype=torch.float64) * 255)).to(device, self.working).view(1, 3, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).to(self.working)
        return images.sub_(self.mean).mul_(self.scale).to(self.dtype)


class HostSlot:
    """For training on a CPU: free again as soon as it was delivered."""

    def __init__(self, shape: tuple[int, ...], normalise: Normalise) -> None:
        self._tensor = torch.empty(shape, dtype=torch.uint8)
        self._normalise = normalise
        self.pixels = self._tensor.numpy()

    def begin(self, parts: int) -> None: ...

    def wait_writable(self) -> None: ...

    def part_done(self) -> None: ...

    def deliver(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._normalise(self._tensor), target


class CudaSlot:
    """Page-locked memory and its twin on the device.

    The thread that finishes the last part starts the copy on a stream of its own, so that it runs while the device
    computes. The page-locked side is free after the copy, the device side after the consumer's stream has read it.
    """

    def __init__(
        self, shape: tuple[int, ...], normalise: Normalise, device: torch.device, copies: torch.cuda.Stream
    ) -> None:
        self._host = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._device = torch.empty(shape, dtype=torch.uint8, device=device)
        self._normalise = normalise
        self._copies = copies
        self._copied = torch.cuda.Event()
        self._read = torch.cuda.Event()
        self._lock = threading.Lock()
        self._parts = 0
        self.pixels = self._host.numpy()

    def begin(self, parts: int) -> None:
        self._parts = parts

    def wait_writable(self) -> None:
        self._copied.synchronize()

    def part_done(self) -> None:
        with self._lock:
            self._parts -= 1
            if self._parts:
                return
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._read)
            self._device.copy_(self._host, non_blocking=True)
            self._copied.record()

    def deliver(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        current = torch.cuda.current_stream(self._device.device)
        current.wait_event(self._copied)
        images = self._normalise(self._device)
        self._read.record(current)
        return images, target.pin_memory().to(self._device.device, non_blocking=True)
