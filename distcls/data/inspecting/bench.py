"""How fast is the data of a recipe, and what bounds it: our loader beside torch's DataLoader and FFCV's own Loader."""

import ctypes
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.windows import Windows
from distcls.data.beton.file_format import JPEG, RAW
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_windows, pack_windows
from distcls.data.decoding.interpolation import Interpolation
from distcls.data.decoding.slots import Normalise
from distcls.data.loader import TrainLoader

_ROOM = 1 << 30  # bytes of decoded images at once


@dataclass(frozen=True)
class Rate:
    """Of one loader: images per second and CPU seconds per image of all its threads and processes."""

    images_per_second: float
    cpu_seconds: float


@dataclass(frozen=True)
class Costs:
    """Of one image on one core, in seconds; `resident`: share of the file that is in the page cache, 0..1."""

    read: float
    decode: float
    resize: float
    copy: float
    stored_bytes: float
    resident: float

    def bound(self, rate: Rate, workers: int) -> str:
        """What bounds our loader at `rate`, in words."""
        busy = rate.images_per_second * rate.cpu_seconds
        if busy < 0.7 * workers and self.resident < 0.9:
            mib = rate.images_per_second * self.stored_bytes / 2**20
            return f"the disk: {mib:.0f} MiB/s, {self.resident:.0%} of the file is in the page cache"
        if busy < 0.7 * workers:
            return (
                f"neither disk nor decoding: only {busy:.1f} cores were busy for {workers} workers: a shared machine?"
            )
        parts = {"decode": self.decode, "resize": self.resize, "copy": self.copy}
        largest = max(parts, key=lambda name: parts[name])
        share = parts[largest] / sum(parts.values())
        return f"the CPU: {busy:.1f} cores busy for {workers} workers; {largest} is {share:.0%} of an image's work"


def measure(batches: Iterator[int], seconds: float, cpu: Callable[[], float]) -> Rate:
    """Take batches for some seconds, after three that do not count. `cpu` tells CPU seconds used so far."""
    for _ in range(3):
        next(batches)
    images, wall, used = 0, time.perf_counter(), cpu()
    while time.perf_counter() - wall < seconds:
        images += next(batches)
    return Rate(images / (time.perf_counter() - wall), (cpu() - used) / images)


def ours(loader: TrainLoader, seconds: float) -> Rate:
    with loader.stream(0, 10**9) as stream:
        return measure((batch.count for batch in stream), seconds, time.process_time)


class _Pillow(torch.utils.data.Dataset):
    """The same stored bytes, decoded by Pillow and cut by torchvision, as most training scripts do."""

    def __init__(self, dataset: BetonDataset, resolution: int, interpolation: Interpolation) -> None:
        from torchvision.transforms import v2

        mode = v2.InterpolationMode.BICUBIC if interpolation == "bicubic" else v2.InterpolationMode.BILINEAR
        self._dataset = dataset
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(resolution, interpolation=mode),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(dataset.mean, dataset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = self._dataset.samples[index]
        data = ctypes.string_at(int(sample["address"]), int(sample["size"]))
        if sample["mode"] == JPEG:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        else:
            image = Image.frombytes("RGB", (int(sample["width"]), int(sample["height"])), data)
        return self._transform(image), int(sample["label"])


def torch_loader(
    dataset: BetonDataset, resolution: int, interpolation: Interpolation, batch_size: int, workers: int, seconds: float
) -> Rate:
    """torch.utils.data.DataLoader over Pillow and torchvision: RandomResizedCrop, flip, normalise."""
    pillow = _Pillow(dataset, resolution, interpolation)
    # One endless epoch: the start of the next one's processes is not what is measured.
    order = torch.utils.data.RandomSampler(pillow, replacement=True, num_samples=10**9)
    iterator = iter(torch.utils.data.DataLoader(pillow, batch_size, sampler=order, num_workers=workers))
    processes = [worker.pid for worker in iterator._workers]  # type: ignore[attr-defined]

    def cpu() -> float:
        return time.process_time() + sum(map(_cpu_of, processes))

    return measure((len(images) for images, _ in iterator), seconds, cpu)


def _cpu_of(process: int) -> float:
    """User and system seconds of a live process, from /proc/PID/stat."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ffcv_loader(dataset: BetonDataset, resolution: int, batch_size: int, workers: int, seconds: float) -> Rate:
    """FFCV's own Loader on the first file: RandomResizedCrop, flip; normalised by our code."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip as Flip
    from ffcv.transforms import Squeeze, ToTensor

    loader = Loader(
        str(dataset.paths[0]),
        batch_size=batch_size,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [RandomResizedCropRGBImageDecoder((resolution, resolution)), Flip(), ToTensor()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    normalise = Normalise(dataset.mean, dataset.std, torch.float32)

    def batches() -> Iterator[int]:
        while True:
            for images, _ in loader:
                yield len(normalise(images))

    return measure(batches(), seconds, time.process_time)


def reference_transforms() -> list[RandomResizedCrop | RandomHorizontalFlip]:
    """What the other loaders do, as ours."""
    return [RandomResizedCrop(), RandomHorizontalFlip()]


def costs(dataset: BetonDataset, resolution: int, interpolation: Interpolation) -> Costs:
    """Where an image's time goes on one core: the mean over 200 images, spread evenly over the data set; over fewer
    where their pixels would take more than a gigabyte."""
    samples = dataset.samples
    most = max(1, _ROOM // (3 * int(samples["height"].max()) * int(samples["width"].max())))
    chosen = np.linspace(0, len(dataset) - 1, min(200, len(dataset), most)).astype(np.int64)
    resident = float(np.mean([_resident(path) for path in dataset.paths]))
    table = samples[chosen]
    here = np.arange(len(chosen))
    whole = np.zeros((len(chosen), 6), np.int32)
    whole[:, 2], whole[:, 3], whole[:, 5] = table["height"], table["width"], 1
    bytes_ = whole[:, 2].astype(np.int64) * whole[:, 3] * 3
    offsets = np.cumsum(bytes_) - bytes_
    pixels, status = np.empty(int(bytes_.sum()), np.uint8), np.empty(len(chosen), np.int32)
    decoded = table.copy()
    decoded["address"], decoded["size"], decoded["mode"] = offsets + pixels.ctypes.data, bytes_, RAW
    windows = Windows.centred(table["height"], table["width"], resolution).packed(np.zeros(len(chosen), bool))
    out = np.empty((len(chosen), resolution, resolution, 3), np.uint8)
    normalise = Normalise(dataset.mean, dataset.std, torch.float32)

    def timed(work: Callable[[], object]) -> float:
        """The best of three, after one that compiles and fills the caches."""
        work()
        spent = []
        for _ in range(3):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        return min(spent) / len(chosen)

    read = timed(lambda: [ctypes.string_at(int(row["address"]), int(row["size"])) for row in table])
    decode = timed(lambda: pack_windows(table, here, whole, 0, offsets, pixels, status))
    resize = timed(lambda: decode_windows(decoded, here, windows, 0, interpolation, out, status))
    copy = timed(lambda: normalise(torch.from_numpy(out)))
    return Costs(read, decode, resize, copy, float(table["size"].mean()), resident)


def _resident(path: Path) -> float:
    """Share of 256 blocks spread over the file that can be read without waiting for a disk."""
    with path.open("rb", buffering=0) as file:
        blocks = np.linspace(0, max(path.stat().st_size - 4096, 0), 256).astype(int)
        return float(np.mean([_in_cache(file.fileno(), int(at)) for at in blocks]))


def _in_cache(file: int, at: int) -> bool:
    try:
        return os.preadv(file, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except OSError:  # EAGAIN: it would have to wait; some file systems cannot tell
        return False
