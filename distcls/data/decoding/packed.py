"""For training on a GPU: the CPU only decodes and crops; the GPU resizes, flips and normalises.

All windows of a batch travel in one pinned buffer together with their table and targets: one copy and one kernel per
batch. One GPU operation per image, be it a copy or a decode, would lengthen the training step by its own duration.

Layout of the buffer: table (N, 7) int64, then target (N,) int64 or (N, C) float32, then the pixels of each window
(rows, cols, 3). Columns of the table: offset of the window in bytes from the start of the buffer; rows, cols, flip; and
the strides in bytes to the next row, column and channel. Images decoded by the GPU lie elsewhere in its memory, in
planar layout; offset and strides address them in the same way.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from distcls.data.decoding.decode_cpu import decode_whole, pack_windows
from distcls.data.decoding.interpolation import Interpolation
from distcls.data.decoding.jpeg_window import WindowDecoder
from distcls.data.decoding.plan import Plan
from distcls.data.decoding.resize_plain import resize_plainly

_COLUMNS = 7
_ROW = _COLUMNS * 8  # bytes


class Transfer(Protocol):
    """Moves a buffer to the training device. "Thread" below is a loader thread, "consumer" the training loop."""

    device: torch.device

    def host_buffer(self, size: int) -> torch.Tensor:
        """A (size,) uint8 host buffer for the threads to write to."""
        ...

    def device_buffer(self, size: int) -> torch.Tensor:
        """Consumer: a (size,) uint8 buffer on the device. No copy may be in flight."""
        ...

    def wait_writable(self) -> None:
        """Thread: wait until the last copy has finished reading the host buffer."""

    def wait_read(self) -> None:
        """Thread: wait until the consumer's stream has read the last copy and the images decoded with it."""

    def decode(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        """Thread: JPEGs (bytes,) uint8 -> images (3, H, W) uint8 on the device, ready once a later copy has arrived.

        Raises:
            RuntimeError: one of them is damaged, or the device cannot decode them.
        """
        ...

    def copy(self, host: torch.Tensor, device: torch.Tensor) -> None:
        """Thread: start the copy, which runs once the consumer's stream has read the previous one."""

    def arrived(self) -> None:
        """Consumer: make its later work on the device wait for the copy."""

    def read(self) -> None:
        """Consumer: all work that reads this copy has been enqueued."""


class CudaTransfer:
    """Copies on a separate CUDA stream, so that they overlap with training."""

    def __init__(self, device: torch.device, copies: torch.cuda.Stream) -> None:
        self.device = copies.device
        self._copies = copies
        self._copied = torch.cuda.Event()
        self._read = torch.cuda.Event()

    def host_buffer(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def device_buffer(self, size: int) -> torch.Tensor:
        buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        # The allocator may return memory that queued work on the consumer's stream still uses: copy after that.
        self.read()
        return buffer

    def wait_writable(self) -> None:
        self._copied.synchronize()

    def wait_read(self) -> None:
        self._read.synchronize()

    def decode(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        with torch.cuda.device(self.device), torch.cuda.stream(self._copies):
            return decode_jpeg(files, mode=ImageReadMode.RGB, device=self.device)

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
    """Host and device buffers for the packed windows of one batch; they grow to the largest batch seen."""

    def __init__(
        self,
        batch_size: int,
        resolution: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        interpolation: Interpolation,
        jpeg: WindowDecoder,
        transfer: Transfer,
    ) -> None:
        self._interpolation: Interpolation = interpolation
        self._jpeg = jpeg
        self._decoded: list[torch.Tensor] = []
        self._mean, self._std, self._dtype = tuple(mean), tuple(std), dtype
        self._transfer = transfer
        self._lock = threading.Lock()
        self._parts = 0
        self._bytes = 0
        # Initial guess: windows of the output's size.
        self._allocate(batch_size * (_ROW + 8 + 3 * resolution**2))

    def _allocate(self, size: int) -> None:
        self._host = self._transfer.host_buffer(size)
        self._device = self._transfer.device_buffer(size)
        self._packed = self._host.numpy()

    def begin(self, plan: Plan, parts: int) -> None:
        self._plan = plan
        rows, cols, flip = plan.windows[:, 2:5].astype(np.int64).T
        self._indices, self._windows = plan.indices, plan.windows
        if plan.on_device is not None:
            # To the threads, images that the device decodes are padding of size zero.
            self._indices = np.where(plan.on_device, -1, plan.indices)
            self._windows = np.where(plan.on_device[:, None], 0, plan.windows)
        sizes = 3 * self._windows[:, 2].astype(np.int64) * self._windows[:, 3]
        ends = len(rows) * _ROW + plan.target.nbytes + np.cumsum(sizes)
        self._offsets = ends - sizes
        one = np.ones_like(rows)
        self._table = np.stack((self._offsets, rows, cols, flip, 3 * cols, 3 * one, one), 1)
        self._bytes = int(ends[-1])
        self._parts = parts
        if self._bytes > len(self._packed):
            self._transfer.wait_writable()
            self._allocate(self._bytes * 5 // 4)

    def fill(self, samples: np.ndarray, first: int, last: int) -> np.ndarray:
        self._transfer.wait_writable()
        status = np.empty(last - first, np.int32)
        part = slice(first, last)
        pack_windows(
            samples,
            self._indices[part],
            self._windows[part],
            self._jpeg.address,
            self._offsets[part],
            self._packed,
            status,
        )
        return status

    def decode_on_device(self, samples: np.ndarray) -> np.ndarray:
        assert self._plan.on_device is not None
        status = np.zeros(len(self._plan.indices), np.int32)
        which = np.flatnonzero(self._plan.on_device)
        rows = samples[self._plan.indices[which]]
        files = [_bytes_of(row) for row in rows]
        # The previous images may be freed only when nothing reads them: the decoder's own stream does not synchronise.
        self._transfer.wait_read()
        self._decoded = []
        try:
            self._decoded = self._transfer.decode(files)
        except RuntimeError:
            # Let the CPU find the damaged ones: decoding also fails, image by image, when the GPU is out of memory.
            status[which] = [decode_whole(samples, index) is None for index in self._plan.indices[which]]
            if not status.any():
                raise
            return status
        for place, row, image in zip(which, rows, self._decoded, strict=True):
            if image.shape != (3, row["height"], row["width"]):
                status[place] = 1
            top, left = self._plan.windows[place, :2].astype(np.int64)
            channel, line, pixel = image.stride()
            start = image.data_ptr() + int(top) * line + int(left) * pixel
            self._table[place, 0] = start - self._device.data_ptr()
            self._table[place, 4:] = line, pixel, channel
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
        table = self._device[: self._table.nbytes].view(torch.int64).view(-1, _COLUMNS)
        target = self._device[self._table.nbytes : pixels_at].view(on_host.dtype).view(on_host.shape).clone()
        shape = (self._plan.resolution, self._mean, self._std, self._dtype)
        images = _resizer(self._device)(self._device, table, *shape, interpolation=self._interpolation)
        self._transfer.read()
        return images, target


def _resizer(packed: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The Triton kernel, or its plain torch equivalent for windows on the CPU, as in tests."""
    if not packed.is_cuda:
        return resize_plainly
    from distcls.data.decoding.decode_gpu import resize_windows  # imports Triton

    return resize_windows


def _bytes_of(sample: np.void) -> torch.Tensor:
    """The stored bytes of a sample, (bytes,) uint8, as a view of the mapped file; must not be written to."""
    array = (ctypes.c_uint8 * int(sample["size"])).from_address(int(sample["address"]))
    return torch.from_numpy(np.ctypeslib.as_array(array))
