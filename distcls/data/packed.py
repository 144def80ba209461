"""For training on a GPU: the CPU only decodes and cuts out, the GPU resizes, mirrors and normalises.

All of a batch's windows travel in one page-locked buffer with their table and targets: one copy and one kernel per
batch. A GPU operation per image instead, be it a copy or a decode, stretches the training step by its own length.

Layout of the buffer: table (N, 4) int64 of offset, rows, cols, flip, then target (N,) int64 or (N, C) float32, then
each window's pixels (rows, cols, 3).
"""

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from distcls.data.decode_cpu import pack_windows
from distcls.data.slots import Plan

_ROW = 4 * 8  # bytes of the table's row


class Transfer(Protocol):
    """How a buffer reaches the device that trains."""

    device: torch.device

    def host_buffer(self, size: int) -> torch.Tensor:
        """(size,) uint8 that threads write to."""
        ...

    def device_buffer(self, size: int) -> torch.Tensor:
        """(size,) uint8 on the device. The consumer; nothing may be under way."""
        ...

    def wait_writable(self) -> None:
        """A thread: until the last copy has read the host's side."""

    def copy(self, host: torch.Tensor, device: torch.Tensor) -> None:
        """A thread: start the copy, once the consumer's stream has read the last one."""

    def arrived(self) -> None:
        """The consumer: what it does next on the device sees the copy."""

    def read(self) -> None:
        """The consumer: what it did so far was all that reads this copy."""


class CudaTransfer:
    """Copies on a stream beside the training, so that they run while the device computes."""

    def __init__(self, device: torch.device, copies: torch.cuda.Stream) -> None:
        self.device = copies.device
        self._copies = copies
        self._copied = torch.cuda.Event()
        self._read = torch.cuda.Event()

    def host_buffer(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def device_buffer(self, size: int) -> torch.Tensor:
        buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        # Its memory may be what an operation still under way on the consumer's stream has let go of.
        self.read()
        return buffer

    def wait_writable(self) -> None:
        self._copied.synchronize()

    def copy(self, host: torch.Tensor, device: torch.Tensor) -> None:
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._read)
            device.copy_(host, non_blocking=True)
            self._copied.record()

    def arrived(self) -> None:
        torch.cuda.current_stream(self.device).wait_event(self._copied)

    def read(self) -> None:
        self._read.record(torch.cuda.current_stream(self.device))


class PackedSlot:
    """Room for the packed windows of one batch, on the host and on the device; grows to the largest batch met."""

    def __init__(
        self,
        batch_size: int,
        resolution: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        transfer: Transfer,
    ) -> None:
        self._mean, self._std, self._dtype = tuple(mean), tuple(std), dtype
        self._transfer = transfer
        self._lock = threading.Lock()
        self._parts = 0
        self._bytes = 0
        # The first guess: windows of the output's size.
        self._allocate(batch_size * (_ROW + 8 + 3 * resolution**2))

    def _allocate(self, size: int) -> None:
        self._host = self._transfer.host_buffer(size)
        self._device = self._transfer.device_buffer(size)
        self._packed = self._host.numpy()

    def begin(self, plan: Plan, parts: int) -> None:
        self._plan = plan
        rows, cols, flip = plan.windows[:, 2:5].astype(np.int64).T
        ends = len(rows) * _ROW + plan.target.nbytes + np.cumsum(3 * rows * cols)
        self._offsets = ends - 3 * rows * cols
        self._table = np.stack((self._offsets, rows, cols, flip), 1)
        self._bytes = int(ends[-1])
        self._parts = parts
        if self._bytes > len(self._packed):
            self._transfer.wait_writable()
            self._allocate(self._bytes * 5 // 4)

    def fill(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        self._transfer.wait_writable()
        status = np.empty(last - first, np.int32)
        part = slice(first, last)
        plan = self._plan
        pack_windows(samples, plan.indices[part], plan.windows[part], self._offsets[part], self._packed, status)
        return status

    def part_done(self) -> None:
        with self._lock:
            self._parts -= 1
            if self._parts:
                return
        head = self._table.tobytes() + self._plan.target.tobytes()
        self._packed[: len(head)] = np.frombuffer(head, np.uint8)
        self._transfer.copy(self._host[: self._bytes], self._device[: self._bytes])

    def deliver(self) -> tuple[torch.Tensor, torch.Tensor]:
        on_host = torch.from_numpy(self._plan.target)
        pixels_at = self._table.nbytes + on_host.nbytes
        self._transfer.arrived()
        table = self._device[: self._table.nbytes].view(torch.int64).view(-1, 4)
        target = self._device[self._table.nbytes : pixels_at].view(on_host.dtype).view(on_host.shape).clone()
        resize = resize_on_gpu if self._device.is_cuda else resize_plainly
        images = resize(self._device, table, self._plan.resolution, self._mean, self._std, self._dtype)
        self._transfer.read()
        return images, target


def resize_on_gpu(
    packed: torch.Tensor,
    table: torch.Tensor,
    resolution: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `resize_plainly`, by one kernel."""
    from distcls.data.decode_gpu import resize_windows

    # Triton launches on the current device, which need not be the loader's.
    with torch.cuda.device_of(packed):
        return resize_windows(packed, table, resolution, mean, std, dtype)


def resize_plainly(
    packed: torch.Tensor,
    table: torch.Tensor,
    resolution: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> torch.Tensor:
    """What the GPU's kernel computes, in plain torch, image by image.

    Args:
        packed: (bytes,) uint8.
        table: (N, 4) int64 of offset, rows, cols, flip.
        resolution: R.
        mean, std: per channel on the scale 0..1.
        dtype: of the result; float32 is computed with.

    Returns:
        (N, 3, R, R) in channels-last memory, normalised.
    """
    out = torch.empty((len(table), resolution, resolution, 3), dtype=dtype, device=packed.device)
    scale = 1 / (255 * torch.tensor(std, device=packed.device))
    shift = 255 * torch.tensor(mean, device=packed.device)
    for image, (offset, rows, cols, flip) in zip(out, table.tolist(), strict=True):
        pixels = packed[offset : offset + rows * cols * 3].view(rows, cols, 3).float()
        down, across = _filter(rows, resolution, packed.device), _filter(cols, resolution, packed.device)
        resized = torch.einsum("iy,yxc->ixc", down, pixels)
        resized = torch.einsum("jx,ixc->ijc", across.flip(0) if flip else across, resized)
        image.copy_((resized - shift) * scale)
    return out.permute(0, 3, 1, 2)


def _filter(length: int, size: int, device: torch.device) -> torch.Tensor:
    """The antialiased bilinear filter as a (size, length) matrix; `decode_cpu._triangle`."""
    support = max(length / size, 1.0)
    centres = (torch.arange(size, device=device, dtype=torch.float64)[:, None] + 0.5) * (length / size)
    places = torch.arange(length, device=device, dtype=torch.float64)[None] + 0.5
    weights = (1 - (places - centres).abs() / support).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()
