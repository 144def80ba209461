"""What bounds a trainer: ResNet-50 on one batch that never leaves the GPU, by way of launching, and its time by kernel.

    python benchmarks/ceiling.py [--resolutions 224 160] [--batch 512] [--modes plain eager graphs compile]
                                 [--no-profile]

plain: the layers one by one. eager: BatchNorm fused with what follows it (distcls/models/common/batch_norm). graphs:
the same in two CUDA graphs, as train.cuda_graphs has it. compile: torch.compile of the plain layers. fp16 with a
GradScaler, fused SGD, channels-last. Writes benchmarks/results/ceiling.json.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

import distcls
from distcls.models.common.batch_norm import fused

BLOCK = {
    "backbone": {"type": "ResNet", "depth": 50, "out_indices": (3,)},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 1000, "loss": {"type": "CrossEntropyLoss"}},
}
#: beginning of a kernel's name, or a part of it -> its kind
KINDS = {
    "triton_poi": "inductor, pointwise",
    "triton_red": "inductor, reductions",
    "triton_per": "inductor, reductions",
}
KINDS |= dict.fromkeys(("wgrad", "dgrad", "fprop", "nvjet"), "convolutions")
KINDS |= {"backward_sums": "BatchNorm, sums of backward", "backward_factors": "BatchNorm, sums of backward"}
KINDS |= {"unpooled": "BatchNorm, backward", "backward": "BatchNorm, backward", "forward": "BatchNorm, forward"}
KINDS |= {"moments": "BatchNorm, statistics", "normalisation": "BatchNorm, statistics"}


def training_step(mode: str, resolution: int, batch: int) -> Callable[[], None]:
    torch._dynamo.reset()
    fused.on_device = lambda x: mode in ("eager", "graphs")
    model = distcls.build_model(BLOCK, image_size=(resolution, resolution))
    model.to(device="cuda", memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5, fused=True)
    scaler = torch.amp.GradScaler("cuda")
    images = torch.randn(batch, 3, resolution, resolution, device="cuda", dtype=torch.float16)
    images = images.to(memory_format=torch.channels_last)
    target = torch.randint(0, 1000, (batch,), device="cuda")
    if mode == "compile":
        model.compile()
    if mode == "graphs":
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            torch.cuda.make_graphed_callables(model.backbone, (images.clone(),))

    def step() -> None:
        with torch.autocast("cuda", torch.float16):
            loss = model(images, target)["loss"]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def rate(step: Callable[[], None], batch: int) -> float:
    windows = []
    for window in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(15):
            step()
        torch.cuda.synchronize()
        if window:  # the first one warms up
            windows.append(15 * batch / (time.perf_counter() - began))
    return statistics.median(windows)


def profile(step: Callable[[], None]) -> dict[str, int]:
    """Microseconds of a step by kind of kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    time_of: Counter[str] = Counter()
    for event in seen.key_averages():
        kind = next((kind for name, kind in KINDS.items() if name in event.key), "other")
        time_of[kind] += round(event.self_device_time_total / 3)
    return dict(time_of.most_common())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = ["plain", "eager", "graphs", "compile"]
    arguments.add_argument("--resolutions", type=int, nargs="+", default=[224, 160])
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--modes", nargs="+", choices=modes, default=modes)
    arguments.add_argument("--profile", action=argparse.BooleanOptionalAction, default=True)
    options = arguments.parse_args()
    torch.backends.cudnn.benchmark = True
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    rows: dict[str, dict] = {}
    for resolution in options.resolutions:
        for mode in options.modes:
            step = training_step(mode, resolution, options.batch)
            row: dict = {"images_per_second": rate(step, options.batch)}
            if options.profile:
                row["us_per_step"] = profile(step)
            rows[f"{mode} @{resolution}"] = row
            print(
                f"{mode:8} @{resolution}: {row['images_per_second']:8.0f} images/s  {row.get('us_per_step', '')}",
                flush=True,
            )
            out = Path(__file__).parent / "results" / "ceiling.json"
            out.write_text(json.dumps({"machine": machine, "options": vars(options), "rows": rows}, indent=1) + "\n")
            del step
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
