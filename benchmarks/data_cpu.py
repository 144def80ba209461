"""Our loader against the stock FFCV Loader, on the same files in one run: images per second and CPU time per image.

    python benchmarks/data_cpu.py [--pairs 5] [--seconds 4] [--workers 2] [--jpegs 2048]

Both deliver normalised float32 batches (the same normalisation code); the stock Loader augments with FFCV's own
transforms. They run in turns, each in a process of its own; the table gives medians over the pairs, and the median of
the pairs' ratios. `first_batch_seconds` counts from before the imports. Writes benchmarks/results/data_cpu.json.
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

import torch
from made_up import MadeUp

CASES = {"raw 28x28": (28, 512), "jpeg 400x350 q90 -> 224": (224, 128)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(path: Path, resolution: int, batch: int, workers: int) -> Iterator[int]:
    from distcls.data.augment import RandomCrop, RandomHorizontalFlip, RandomResizedCrop
    from distcls.data.dataset import BetonDataset
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
    )
    with loader.stream(0, 10**9) as stream:
        for images in stream:
            yield len(images.images)


def stock(path: Path, resolution: int, batch: int, workers: int) -> Iterator[int]:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, RandomTranslate, Squeeze, ToTensor

    from distcls.data.slots import Normalise

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
    """Runs in a process of its own. Counting starts after ten more batches."""
    start = time.perf_counter()
    batches = {"ours": ours, "stock": stock}[which](path, resolution, batch, workers)
    next(batches)
    first = time.perf_counter() - start
    for _ in range(10):
        next(batches)
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        images += next(batches)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_per_second": images / wall, "cpu_us_per_image": cpu / images * 1e6, "first_batch_seconds": first}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--jpegs", type=int, default=2048)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_cpu.json")
    arguments.add_argument("--one", nargs=4, metavar=("WHICH", "PATH", "RESOLUTION", "BATCH"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        which, path, resolution, batch = options.one
        print(json.dumps(measure(which, Path(path), int(resolution), int(batch), options.workers, options.seconds)))
        return

    from distcls.data.convert import convert

    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{number}.beton" for number, name in enumerate(CASES)}
        small, large = files.values()
        convert(MadeUp(60_000, 28, 28, small=True), small)
        sidecar = convert(MadeUp(options.jpegs, 350, 400, small=False), large)
        size = sidecar.bytes / sidecar.samples / 1000
        print(f"JPEGs of {size:.0f} kB, {options.workers} workers, {options.pairs} pairs")
        for name, (resolution, batch) in CASES.items():
            runs[name] = [
                {which: _one(which, files[name], resolution, batch, options) for which in _turns(pair)}
                for pair in range(options.pairs)
            ]
    table = {name: _summary(pairs) for name, pairs in runs.items()}
    for name, rows in table.items():
        print(f"\n{name}")
        for row, values in rows.items():
            print(
                f"  {row:22} ours {values['ours']:10.2f}   stock {values['stock']:10.2f}   ratio {values['ratio']:.3f}"
            )
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(
        json.dumps({"machine": _machine(options.workers), "median": table, "runs": runs}, indent=1) + "\n"
    )


def _turns(pair: int) -> list[str]:
    return ["ours", "stock"] if pair % 2 else ["stock", "ours"]


def _one(which: str, path: Path, resolution: int, batch: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", which, str(path), str(resolution), str(batch)]
    command += ["--workers", str(options.workers), "--seconds", str(options.seconds)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return json.loads(
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]
    )


def _summary(pairs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    rows = {}
    for row in pairs[0]["ours"]:
        ratios = [pair["ours"][row] / pair["stock"][row] for pair in pairs]
        medians = {which: statistics.median(pair[which][row] for pair in pairs) for which in ("ours", "stock")}
        rows[row] = {**medians, "ratio": statistics.median(ratios)}
    return rows


def _machine(workers: int) -> dict[str, object]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    packages = {package: version(package) for package in ("ffcv", "numba", "numpy", "torch")}
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(), "workers": workers, **packages}


if __name__ == "__main__":
    main()
