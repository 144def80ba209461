"""The loader on a GPU, alone and feeding ResNet-50 (fp16, CUDA graphs), relative to training on a resident batch.

    python benchmarks/gpu_data.py [--workers 16] [--batch 512] [--seconds 10] [--resolutions 224 160] [--decode-share 0]
        [--interpolation bilinear] [--cases raw jpeg] [--no-training]

Writes its own .beton files (raw 256x341, JPEG 375x500 q90) to a temporary folder. Rows are printed and written to --out
as they are measured. Smoke test on a CPU: --batch 4 --images 16 --seconds 0 --resolutions 32 --depth 18.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from ceiling import DEVICE, HALF, MODES, resident, synchronize, training_step
from made_up import MadeUp

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.jpeg_window import window_decoder
from distcls.data.loader import TrainLoader

CASES = {"raw": ("raw 256x341", 256, 341, "raw"), "jpeg": ("jpeg 375x500 q90", 375, 500, "jpg")}


@contextmanager
def batches(path: Path, resolution: int, options: argparse.Namespace) -> Iterator[Iterator]:
    loader = TrainLoader(
        BetonDataset(path),
        resolution=resolution,
        transforms=[RandomResizedCrop(), RandomHorizontalFlip()],
        global_batch_size=options.batch,
        seed=0,
        workers=options.workers,
        device=DEVICE,
        dtype=HALF,
        interpolation=options.interpolation,
        gpu_decode_share=options.decode_share,
    )
    with loader.stream(0, 10**9) as stream:
        yield stream
    loader.close()


def rate(work: Callable[[], int], seconds: float) -> dict[str, float]:
    """Images per second and CPU cores in use, after ten rounds of warm-up; synchronises before reading the clock."""
    for _ in range(10 if seconds else 1):
        work()
    synchronize()
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    while not images or time.perf_counter() - wall < seconds:
        images += work()
    synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_per_second": images / wall, "cpu_cores": cpu / wall, "cpu_us_per_image": cpu / images * 1e6}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--images", type=int, default=4096)
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--resolutions", type=int, nargs="+", default=[224, 160])
    arguments.add_argument("--decode-share", type=float, default=0.0, help="of the JPEGs: decoded by the GPU")
    arguments.add_argument("--interpolation", default="bilinear")
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--training", action=argparse.BooleanOptionalAction, default=True)
    arguments.add_argument("--depth", type=int, default=50)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_gpu.json")
    options = arguments.parse_args()
    torch.backends.cudnn.benchmark = True

    machine = {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "jpeg": window_decoder().name,
        **{package: version(package) for package in ("torch", "triton", "numba", "ffcv")},
    }
    rows: dict[str, dict[str, float]] = {}

    def report(name: str, values: dict[str, float]) -> None:
        rows[name] = values
        print(f"{name:44}", "  ".join(f"{key} {value:9.2f}" for key, value in values.items()), flush=True)
        found = {"machine": machine, "options": {**vars(options), "out": str(options.out)}, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for case in options.cases:
            name, height, width, mode = CASES[case]
            files[name] = Path(folder) / f"{case}.beton"
            convert(MadeUp(options.images, height, width, small=False), files[name], write_mode=mode)
        for resolution in options.resolutions:
            for name, path in files.items():
                with batches(path, resolution, options) as stream:
                    report(
                        f"{name}: loader alone @{resolution}",
                        rate(lambda s=stream: len(next(s).images), options.seconds),  # type: ignore[misc]
                    )
            if options.training:
                feed(files, resolution, options, report)
                gc.collect()  # free the graph's memory


def feed(
    files: dict[str, Path], resolution: int, options: argparse.Namespace, report: Callable[[str, dict], None]
) -> None:
    """Compare training on the loader's batches with training on a batch that stays on the GPU."""
    graphs = MODES["graphs"]
    step = training_step(graphs, resolution, options.batch, options.depth)
    images, target = resident(graphs, resolution, options.batch)

    def stay() -> int:
        step(images, target)
        return len(images)

    report(f"resident batch @{resolution}", rate(stay, options.seconds))
    for name, path in files.items():
        with batches(path, resolution, options) as stream:

            def fed(stream: Iterator = stream) -> int:
                batch = next(stream)
                step(batch.images, batch.target)
                return len(batch.images)

            result = rate(fed, options.seconds)
        beside = rate(stay, options.seconds)  # measured again next to it, because GPU clocks drift
        result["share_of_resident"] = result["images_per_second"] / beside["images_per_second"]
        report(f"{name}: training @{resolution}", result)


if __name__ == "__main__":
    main()
