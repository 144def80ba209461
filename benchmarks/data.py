"""distcls' loader compared with the stock FFCV Loader on a CPU, on the same files; for GPUs see gpu_data.py.

    python benchmarks/data.py [--pairs 5] [--seconds 4] [--workers 2] [--jpegs 2048] [--markdown]

All deliver normalised float32 batches (the same normalisation code); the stock Loader augments with FFCV's own
transforms. `ours` decodes only the window of a JPEG if that decoder is compiled (jpeg_window.py), `whole` is ours
without it, `area` and `bicubic` are ours with other filters. They take turns, each in its own process; the table gives
medians over the rounds, and the median ratio to stock. `first_batch_seconds` counts from before the imports of distcls
or ffcv, but after torch's, to the first batch, with compiled code already cached. Writes benchmarks/results/data.json;
--markdown only prints the table of docs/data.md from it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from made_up import MadeUp

CASES = {
    "raw 28x28": (28, 512, ("ours", "stock")),
    "jpeg 400x350 q90 -> 224": (224, 128, ("ours", "whole", "area", "bicubic", "stock")),
}
INTERPOLATIONS: dict[str, Literal["ffcv_area", "bicubic"]] = {"area": "ffcv_area", "bicubic": "bicubic"}
ROWS = {
    "images_per_second": "images/s",
    "cpu_us_per_image": "CPU us per image",
    "first_batch_seconds": "first batch, s",
    "first_batch_cpu_seconds": "first batch, CPU s",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(which: str, path: Path, resolution: int, batch: int, workers: int) -> Iterator[int]:
    from distcls.data.augmenting.augment import RandomCrop, RandomHorizontalFlip, RandomResizedCrop
    from distcls.data.dataset import BetonDataset
    from distcls.data.decoding.jpeg_window import WHOLE
    from distcls.data.loader import TrainLoader

    crop = RandomCrop(padding=2) if resolution == 28 else RandomResizedCrop()
    loader = TrainLoader(
        BetonDataset(path),
        resolution=resolution,
        transforms=[crop, RandomHorizontalFlip()],
        global_batch_size=batch,
        seed=0,
        workers=workers,
        device="cpu",
        jpeg=WHOLE if which == "whole" else None,
        interpolation=INTERPOLATIONS.get(which, "bilinear"),
    )
    with loader.stream(0, 10**9) as stream:
        for images in stream:
            yield len(images.images)


def stock(path: Path, resolution: int, batch: int, workers: int) -> Iterator[int]:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, RandomTranslate, Squeeze, ToTensor

    from distcls.data.decoding.slots import Normalise

    decode = (
        [SimpleRGBImageDecoder(), RandomTranslate(padding=2)]
        if resolution == 28
        else [RandomResizedCropRGBImageDecoder((resolution, resolution))]
    )
    loader = Loader(
        str(path),
        batch_size=batch,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=0,
        pipelines={
            "image": [*decode, RandomHorizontalFlip(), ToTensor()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    normalise = Normalise(MEAN, STD, torch.float32)
    while True:
        for images, _ in loader:
            yield len(normalise(images))


def measure(which: str, path: Path, resolution: int, batch: int, workers: int, seconds: float) -> dict[str, float]:
    """Measure in this process, which must be fresh. The rate counts after the first eleven batches."""
    start, started = time.perf_counter(), time.process_time()
    shape = (path, resolution, batch, workers)
    batches = stock(*shape) if which == "stock" else ours(which, *shape)
    next(batches)
    first, first_cpu = time.perf_counter() - start, time.process_time() - started
    for _ in range(10):
        next(batches)
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        images += next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    values = (images / wall, cpu / images * 1e6, first, first_cpu)
    return dict(zip(ROWS, values, strict=True))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--jpegs", type=int, default=2048)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data.json")
    arguments.add_argument("--markdown", action="store_true", help="print the table of the last results")
    arguments.add_argument("--one", nargs=4, metavar=("WHICH", "PATH", "RESOLUTION", "BATCH"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.markdown:
        print(markdown(json.loads(options.out.read_text())))
        return
    if options.one:
        which, path, resolution, batch = options.one
        print(json.dumps(measure(which, Path(path), int(resolution), int(batch), options.workers, options.seconds)))
        return

    from distcls.data.converting.convert import convert

    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{number}.beton" for number, name in enumerate(CASES)}
        small, large = files.values()
        convert(MadeUp(60_000, 28, 28, small=True), small)
        sidecar = convert(MadeUp(options.jpegs, 350, 400, small=False), large)
        size = sidecar.bytes / sidecar.samples / 1000
        print(f"JPEGs of {size:.0f} kB, {options.workers} workers, {options.pairs} pairs")
        for name, (resolution, batch, loaders) in CASES.items():
            runs[name] = [
                {which: _one(which, files[name], resolution, batch, options) for which in _turns(loaders, number)}
                for number in range(options.pairs)
            ]
    table = {name: _summary(pairs) for name, pairs in runs.items()}
    results = {"machine": _machine(options.workers), "rounds": options.pairs, "median": table, "runs": runs}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))


def _turns(loaders: tuple[str, ...], number: int) -> tuple[str, ...]:
    return loaders[::-1] if number % 2 else loaders


def markdown(results: dict[str, Any]) -> str:
    """The table of docs/data.md."""
    lines = ["| case | loader | " + " | ".join(ROWS.values()) + " | CPU time beside stock |", "|---|---|" + "---:|" * 5]
    for case, loaders in results["median"].items():
        for which, values in loaders.items():
            rate, cpu, first, first_cpu = (values[row] for row in ROWS)
            ratio = f"{values['cpu_ratio']:.3f}" if which != "stock" else ""
            lines.append(f"| {case} | {which} | {rate:,.0f} | {cpu:,.1f} | {first:.2f} | {first_cpu:.2f} | {ratio} |")
    return "\n".join(lines)


def _one(which: str, path: Path, resolution: int, batch: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", which, str(path), str(resolution), str(batch)]
    command += ["--workers", str(options.workers), "--seconds", str(options.seconds)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return json.loads(
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]
    )


def _summary(pairs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    loaders = {}
    for which in sorted(pairs[0]):
        loaders[which] = {row: statistics.median(pair[which][row] for pair in pairs) for row in ROWS}
        ratios = [pair[which]["cpu_us_per_image"] / pair["stock"]["cpu_us_per_image"] for pair in pairs]
        loaders[which]["cpu_ratio"] = statistics.median(ratios)
    return loaders


def _machine(workers: int) -> dict[str, object]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    from distcls.data.decoding.jpeg_window import window_decoder

    packages = {package: version(package) for package in ("ffcv", "numba", "numpy", "torch")}
    cpu = names[0] if names else platform.machine()
    load = os.getloadavg()[2]  # over the last 15 minutes, to show what else the machine was doing
    machine = {"cpu": cpu, "cores": os.cpu_count(), "load": load, "workers": workers}
    return {**machine, "jpeg": window_decoder().name, **packages}


if __name__ == "__main__":
    main()
