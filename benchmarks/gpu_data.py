"""The loader on a GPU: alone, and feeding a compiled fp16 ResNet-50, as a share of what a resident batch reaches.

    python benchmarks/gpu_data.py [--workers 16] [--batch 512] [--seconds 10] [--resolutions 224 160] [--decode-share 0]

Makes its own .beton files (raw 256x341, JPEG 375x500 q90) in a temporary folder. Prints a table and writes
benchmarks/results/data_gpu.json. Takes about six minutes, of which compiling is two.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
import torchvision
from made_up import MadeUp

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.jpeg_window import window_decoder
from distcls.data.loader import TrainLoader

CASES = {"raw 256x341": (256, 341, "raw"), "jpeg 375x500 q90": (375, 500, "jpg")}
Step = Callable[[torch.Tensor, torch.Tensor], None]


@contextmanager
def batches(path: Path, resolution: int, options: argparse.Namespace) -> Iterator[Iterator]:
    loader = TrainLoader(
        BetonDataset(path),
        resolution=resolution,
        transforms=[RandomResizedCrop(), RandomHorizontalFlip()],
        global_batch_size=options.batch,
        seed=0,
        workers=options.workers,
        device="cuda",
        dtype=torch.float16,
        gpu_decode_share=options.decode_share,
    )
    with loader.stream(0, 10**9) as stream:
        yield stream
    loader.close()


def training_step() -> Step:
    torch.backends.cudnn.benchmark = True
    model = torchvision.models.resnet50().cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5, fused=True)
    scaler = torch.amp.GradScaler()
    compiled = torch.compile(model)

    def step(images: torch.Tensor, target: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.float16):
            loss = torch.nn.functional.cross_entropy(compiled(images), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def rate(work: Callable[[], int], seconds: float) -> dict[str, float]:
    """Images per second and CPU cores in use, after ten rounds of warm-up; the GPU has finished when time is taken."""
    for _ in range(10):
        work()
    torch.cuda.synchronize()
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        images += work()
    torch.cuda.synchronize()
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
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_gpu.json")
    options = arguments.parse_args()

    rows: dict[str, dict[str, float]] = {}

    def report(name: str, values: dict[str, float]) -> None:
        rows[name] = values
        print(f"{name:44}", "  ".join(f"{key} {value:9.2f}" for key, value in values.items()), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{number}.beton" for number, name in enumerate(CASES)}
        for name, (height, width, mode) in CASES.items():
            convert(MadeUp(options.images, height, width, small=False), files[name], write_mode=mode)
        for resolution in options.resolutions:
            for name, path in files.items():
                with batches(path, resolution, options) as stream:
                    report(
                        f"{name}: loader alone @{resolution}",
                        rate(lambda s=stream: len(next(s).images), options.seconds),
                    )
            torch._dynamo.reset()
            step = training_step()
            images = torch.randn(options.batch, 3, resolution, resolution, device="cuda", dtype=torch.float16)
            images = images.to(memory_format=torch.channels_last)
            target = torch.randint(0, 10, (options.batch,), device="cuda")

            def resident(step: Step = step, images: torch.Tensor = images, target: torch.Tensor = target) -> int:
                step(images, target)
                return len(images)

            report(f"resident batch @{resolution}", rate(resident, options.seconds))
            for name, path in files.items():
                with batches(path, resolution, options) as stream:

                    def fed(step: Step = step, stream: Iterator = stream) -> int:
                        batch = next(stream)
                        step(batch.images, batch.target)
                        return len(batch.images)

                    result = rate(fed, options.seconds)
                ceiling = rate(resident, options.seconds)  # again, beside it: clocks drift
                result["share_of_resident"] = result["images_per_second"] / ceiling["images_per_second"]
                report(f"{name}: training @{resolution}", result)
    machine = {
        "gpu": torch.cuda.get_device_name(),
        "cores": len(os.sched_getaffinity(0)),
        "workers": options.workers,
        "batch": options.batch,
        "decode_share": options.decode_share,
        "jpeg": window_decoder().name,
        **{package: version(package) for package in ("torch", "triton", "numba", "ffcv")},
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
