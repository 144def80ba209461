"""Upper bound for a trainer: ResNet-50 on one batch resident on the GPU, by launch mode, with the time per kernel.

    python benchmarks/ceiling.py [--resolutions 224 160] [--batch 512] [--modes plain eager graphs compile ...]
                                 [--no-profile]

plain: the layers one by one. eager: BatchNorm fused with the layers after it (distcls/models/common/batch_norm).
graphs: the same in two CUDA graphs, as with train.cuda_graphs. compile: torch.compile of the plain layers. The other
modes are graphs with one change each (see MODES), to be compared with graphs of the same call. fp16 with a GradScaler,
fused SGD, channels-last. Rows are written to --out as they are measured. On a CPU it runs in fp32 with plain layers,
as a smoke test: --batch 2 --resolutions 32 --depth 18 --steps 1.
"""

import argparse
import gc
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import distcls
from distcls.models.common.batch_norm import fused, launches
from distcls.models.common.batch_norm.launches import Tuning

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.float16 if DEVICE == "cuda" else torch.float32


@dataclass(frozen=True)
class Mode:
    """How a step is launched; `wide_stem` gives the first convolution a fourth input channel of zeros."""

    fused: bool = True
    graphs: bool = True
    compiled: bool = False
    wide_stem: bool = False
    tuning: Tuning = launches.TUNING


MODES = {
    "plain": Mode(fused=False, graphs=False),
    "eager": Mode(graphs=False),
    "graphs": Mode(),
    "compile": Mode(fused=False, graphs=False, compiled=True),
    "warps4": Mode(tuning=Tuning(warps=4, parts_of_two=528)),  # the sums' configuration at the last measurement
    "read-ahead": Mode(tuning=Tuning(stages=3)),
    "descending": Mode(tuning=Tuning(descending=True)),
    "wide-stem": Mode(wide_stem=True),
    "all": Mode(wide_stem=True, tuning=Tuning(stages=3, descending=True)),
}
#: part of a kernel's name -> its kind
KINDS = {
    "triton_poi": "inductor, pointwise",
    "triton_red": "inductor, reductions",
    "triton_per": "inductor, reductions",
}
KINDS |= dict.fromkeys(("wgrad", "dgrad", "fprop", "nvjet"), "convolutions")
KINDS |= {"backward_sums": "BatchNorm, sums of backward", "backward_factors": "BatchNorm, sums of backward"}
KINDS |= {"unpooled": "BatchNorm, backward", "backward": "BatchNorm, backward", "forward": "BatchNorm, forward"}
KINDS |= {"moments": "BatchNorm, statistics", "normalisation": "BatchNorm, statistics"}


class WideConv2d(nn.Conv2d):
    """Accepts images padded with zero channels, as cuDNN prefers four, and pads its weights to match."""

    def forward(self, x: Tensor) -> Tensor:
        weight = nn.functional.pad(self.weight, (0, 0, 0, 0, 0, x.shape[1] - self.in_channels))
        return self._conv_forward(x, weight, self.bias)


def training_step(mode: Mode, resolution: int, batch: int, depth: int = 50) -> Callable[[Tensor, Tensor], Tensor]:
    """A step: (images, target), as of `resident` -> the loss; it also updates the weights."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    fused.on_device = lambda x: mode.fused and x.is_cuda
    launches.TUNING = mode.tuning
    block = {
        "backbone": {"type": "ResNet", "depth": depth, "out_indices": (3,)},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 1000, "loss": {"type": "CrossEntropyLoss"}},
    }
    model = distcls.build_model(block, image_size=(resolution, resolution))
    if mode.wide_stem:
        model.backbone.conv1.__class__ = WideConv2d
    model.to(DEVICE).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5, fused=True)
    scaler = torch.amp.GradScaler(DEVICE, enabled=DEVICE == "cuda")
    if mode.compiled:
        model.compile()
    if mode.graphs and DEVICE == "cuda":
        images, _ = resident(mode, resolution, batch)
        with torch.autocast(DEVICE, HALF, cache_enabled=False):
            torch.cuda.make_graphed_callables(model.backbone, (images,))

    def step(images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(DEVICE, HALF, enabled=DEVICE == "cuda"):
            loss = model(images, target)["loss"]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.detach()

    return step


def resident(mode: Mode, resolution: int, batch: int) -> tuple[Tensor, Tensor]:
    """One batch in the loader's format: images (N, 3, R, R), with four channels for `wide_stem`, and target (N,)."""
    torch.manual_seed(1)
    images = torch.randn(batch, 3, resolution, resolution, device=DEVICE, dtype=HALF)
    if mode.wide_stem:
        images = nn.functional.pad(images, (0, 0, 0, 0, 0, 1))
    return images.to(memory_format=torch.channels_last), torch.randint(0, 1000, (batch,), device=DEVICE)


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def rate(step: Callable[[], Tensor], batch: int, steps: int) -> dict[str, float]:
    """Images per second and the interpreter's milliseconds per step, medians of four windows."""
    windows, launched = [], []
    for window in range(5):
        synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        launched.append(1000 * (time.perf_counter() - began) / steps)
        synchronize()
        if window:  # the first one warms up
            windows.append(steps * batch / (time.perf_counter() - began))
    return {"images_per_second": statistics.median(windows), "interpreter_ms": statistics.median(launched[1:])}


def profile(step: Callable[[], Tensor]) -> dict[str, int]:
    """Microseconds per step by kind of kernel."""
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
    arguments.add_argument("--resolutions", type=int, nargs="+", default=[224, 160])
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--depth", type=int, default=50)
    arguments.add_argument("--steps", type=int, default=15, help="of a window")
    arguments.add_argument("--modes", nargs="+", choices=MODES, default=["plain", "eager", "graphs", "compile"])
    arguments.add_argument("--profile", action=argparse.BooleanOptionalAction, default=DEVICE == "cuda")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ceiling.json")
    options = arguments.parse_args()
    torch.backends.cudnn.benchmark = True
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    machine = {"device": device, "torch": torch.__version__}
    rows: dict[str, dict] = {}
    for resolution in options.resolutions:
        for name in options.modes:
            began, mode = time.perf_counter(), MODES[name]
            step = training_step(mode, resolution, options.batch, options.depth)
            batch = resident(mode, resolution, options.batch)
            row: dict = {"first_loss": step(*batch).item(), "start_s": time.perf_counter() - began}
            row |= rate(partial(step, *batch), options.batch, options.steps)
            if options.profile:
                row["us_per_step"] = profile(partial(step, *batch))
            rows[f"{name} @{resolution}"] = row | {"mode": asdict(mode)}
            print(
                f"{name:10} @{resolution}: {row['images_per_second']:8.0f} images/s  "
                f"first loss {row['first_loss']:.4f}  {row.get('us_per_step', '')}",
                flush=True,
            )
            report = {"machine": machine, "options": {**vars(options), "out": str(options.out)}, "rows": rows}
            options.out.write_text(json.dumps(report, indent=1) + "\n")
            del step, batch
            gc.collect()  # free the graph's memory for the next mode
            if DEVICE == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
