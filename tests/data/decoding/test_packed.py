"""The way of a batch to a GPU, on a CPU: the same packing, buffers and table; the kernel under Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from distcls.data.augmenting.augment import RandomCrop, RandomHorizontalFlip, RandomResizedCrop
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.jpeg_window import window_decoder
from distcls.data.decoding.packed import PackedSlot
from distcls.data.decoding.resize_plain import resize_plainly
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader, TrainLoader


class HostTransfer:
    """A device that is the host, with a memory for buffers and decoded images."""

    device = torch.device("cpu")

    def __init__(self):
        self.sizes = []
        self.memory = torch.full((2**22,), 77, dtype=torch.uint8)
        self.taken = 0

    def host_buffer(self, size):
        self.sizes.append(size)
        return torch.full((size,), 77, dtype=torch.uint8)

    def device_buffer(self, size):
        self.sizes.append(size)
        self.taken = size
        return self.memory[:size]

    def decode(self, files):
        images, start = [], self.taken
        for image in decode_jpeg(files, mode=ImageReadMode.RGB):
            room = self.memory[start : start + image.numel()].view(image.shape)
            images.append(room.copy_(image))
            start += image.numel()
        return images

    def wait_read(self): ...

    def copy(self, host, device):
        device.copy_(host)

    def wait_writable(self): ...

    arrived = read = wait_writable


def pack(loader, dtype=torch.float32):
    """Give the loader the slots of a GPU; returns their transfers."""
    normal = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    transfers = [HostTransfer() for _ in loader.slots]
    loader.slots = [
        PackedSlot(
            loader.batch_size,
            loader.resolution,
            dtype=dtype,
            transfer=transfer,
            interpolation=loader.interpolation,
            jpeg=window_decoder(),
            **normal,
        )
        for transfer in transfers
    ]
    return transfers


def make(dataset, kind=TrainLoader, **changes):
    shape = {"batch_size": 25} if kind is EvalLoader else {"global_batch_size": 24, "seed": 1}
    if kind is TrainLoader:
        shape["transforms"] = [RandomResizedCrop(), RandomHorizontalFlip()]
    return kind(dataset, **({"resolution": 28, "workers": 2, "device": "cpu"} | shape | changes))


def levels(images):
    """What was normalised, on the scale 0..255."""
    scale, shift = torch.tensor([0.2, 0.3, 0.25]), torch.tensor([0.4, 0.5, 0.6])
    return (images.float().permute(0, 2, 3, 1) * scale + shift) * 255


def batches(loader, *span):
    with loader.stream(*span) if span else loader.batches() as stream:
        return list(stream)


@pytest.mark.parametrize("resolution", [16, 28, 96])
@pytest.mark.parametrize(("interpolation", "tolerance"), [("bilinear", 0.51), ("bicubic", 1.2)])
def test_packed_windows_become_the_cpus_images(mixed, resolution, interpolation, tolerance):
    """Up to the CPU's rounding to whole levels; bicubic, as Pillow, rounds twice."""
    shape = {"resolution": resolution, "interpolation": interpolation}
    ours, other = make(mixed, **shape), make(mixed, **shape)
    pack(other)
    mean, std = torch.tensor(mixed.mean), torch.tensor(mixed.std)
    for one, two in zip(batches(ours, 0, 3), batches(other, 0, 3), strict=True):
        expected = (one.images.permute(0, 2, 3, 1) * std + mean) * 255
        assert (levels(two.images) - expected).abs().max() < tolerance
        assert torch.equal(one.target, two.target)
        assert torch.equal(one.index, two.index)
        assert two.images.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_beyond_the_image_is_black_there(raw, raw_images):
    loader = make(raw, transforms=[RandomCrop(4), RandomHorizontalFlip()])
    pack(loader)
    plain = make(raw, transforms=[RandomCrop(4), RandomHorizontalFlip()])
    mean, std = torch.tensor(raw.mean), torch.tensor(raw.std)
    for one, two in zip(batches(plain, 0, 3), batches(loader, 0, 3), strict=True):
        expected = (one.images.permute(0, 2, 3, 1) * std + mean) * 255
        assert (levels(two.images) - expected).abs().max() < 1e-3


def test_padding_is_black(mixed):
    loader = make(mixed, EvalLoader, world_size=2, rank=1)
    pack(loader)
    first, last = batches(loader)
    assert (first.count, last.count) == (25, 0)
    assert levels(last.images).abs().max() < 1e-3
    assert last.target.tolist() == last.index.tolist() == [-1] * 25


def test_half_precision_is_the_rounded_result(mixed):
    one, two = make(mixed), make(mixed)
    pack(one)
    pack(two, torch.float16)
    for exact, half in zip(batches(one, 0, 2), batches(two, 0, 2), strict=True):
        assert torch.equal(exact.images.half(), half.images)


def test_buffers_grow_once_to_what_batches_need(mixed):
    """Windows of up to 119 pixels a side for images of 8."""
    loader = make(mixed, EvalLoader, resolution=8, crop_ratio=1.0)
    transfers = pack(loader)
    batches(loader)
    batches(loader)
    assert max(len(transfer.sizes) for transfer in transfers) <= 6  # host and device: first, and at most twice more


def test_a_damaged_jpeg_is_named(mixed):
    index = int(np.flatnonzero(mixed.samples["mode"] == 0)[5])
    copy = BetonDataset(mixed.paths)
    copy.samples["size"][index] //= 3
    loader = make(copy, EvalLoader)
    pack(loader)
    with pytest.raises(DataError, match=f"sample {index}: its JPEG data is damaged"):
        batches(loader)


def example():
    """Windows that are shrunk, enlarged, kept, of one pixel, mirrored, and channel by channel: (packed, table)."""
    sizes = [(61, 40), (9, 13), (20, 20), (1, 1), (100, 7)]
    ends = np.cumsum([rows * cols * 3 for rows, cols in sizes])
    packed = np.random.default_rng(0).integers(0, 256, ends[-1], np.uint8)
    table = [
        (end - rows * cols * 3, rows, cols, i % 2, *((cols, 1, rows * cols) if i == 2 else (3 * cols, 3, 1)))
        for i, (end, (rows, cols)) in enumerate(zip(ends, sizes, strict=True))
    ]
    return torch.from_numpy(packed), torch.tensor(table)


INTERPRETED = """
import torch
from distcls.data.decoding.decode_gpu import resize_windows
from distcls.data.decoding.resize_plain import resize_plainly
from tests.data.decoding.test_packed import example
packed, table = example()
normal = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
exact, half = (torch.float32, 1e-4), (torch.float16, 4e-3)
for interpolation, (dtype, tolerance) in (("bilinear", exact), ("bilinear", half), ("bicubic", exact), ("ffcv_area", exact)):
    kernel = resize_windows(packed, table, 20, *normal, dtype, interpolation=interpolation)
    plain = resize_plainly(packed, table, 20, *normal, dtype, interpolation=interpolation)
    assert kernel.stride() == plain.stride() and kernel.dtype == dtype
    difference = (kernel.float() - plain.float()).abs().amax((1, 2, 3))
    assert difference.max() < tolerance, (interpolation, difference)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch for CUDA")
def test_the_kernel_computes_what_its_plain_twin_does():
    root = Path(__file__).parents[3]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_plain_twin_is_torchvisions_resize(interpolation):
    """bicubic's with what overshoots cut off after each of its two ways, as Pillow does."""
    from torchvision.transforms.v2 import functional

    packed, table = example()
    how = {"interpolation": functional.InterpolationMode(interpolation), "antialias": True}
    images = resize_plainly(packed, table, 20, (0, 0, 0), (1, 1, 1), torch.float32, interpolation=interpolation) * 255
    for image, (offset, rows, cols, flip, *strides) in zip(images, table.tolist(), strict=True):
        window = packed.as_strided((rows, cols, 3), strides, offset).permute(2, 0, 1).float()
        lines = functional.resize(window, [rows, 20], **how).clamp(0, 255)
        expected = functional.resize(lines, [20, 20], **how).clamp(0, 255)
        assert (image - (expected.flip(2) if flip else expected)).abs().max() < 1e-3
