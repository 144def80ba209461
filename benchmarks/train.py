"""The whole trainer against a bare loop: ResNet-50 from .beton files through launch/train.py, beside a resident batch.

    python benchmarks/train.py [--resolutions 224 160] [--steps 200] [--batch 512] [--precision fp16] [--cases raw jpeg]
        [--mode eager | graphs | compile] [--evaluation] [--ffcv]

The bare loop is the same classifier, optimizer, precision and compilation on one batch that never leaves the device:
the ceiling of any trainer. The trainer runs with everything on: loading, augmentation, logging every 20 steps, a moving
average (with --ema) and checkpoints. Its figure is the median of its own rows after --warm-up steps. On a CPU give a
small model: --batch 32 --steps 100 --resolutions 64 --precision fp32 --mode eager --depth 18. Writes its rows, as they
come, to --out.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from ffcv_style import ffcv_style
from made_up import MadeUp

import distcls
from distcls.data.converting.convert import convert
from distcls.tracking.jsonl import read_rows

ROOT = Path(__file__).parents[1]
IMAGES = {"raw": (256, 341, "raw"), "jpeg": (375, 500, "jpg")}
FAR = 100_000.0  # epochs: no evaluation
RECIPE = """\
model:
  backbone: {{type: ResNet, depth: {depth}, out_indices: [3]}}
  neck: {{type: GlobalAveragePooling}}
  head: {{type: LinearClsHead, num_classes: 10, loss: {{type: CrossEntropyLoss}}, topk: [1, 5]}}
data:
  train: {{path: {beton}}}
  val: {{path: {val}}}
  resolution: {resolution}
  augment: [{{type: RandomResizedCrop}}, {{type: RandomHorizontalFlip}}]
optimizer: {{type: SGD, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-5}}
schedule: {{type: CosineWarmup, warmup_steps: 5}}
train: {{max_steps: {steps}, global_batch_size: {batch}, log_every_steps: 20, precision: {precision},
        compile: {compile}, cuda_graphs: {graphs}, channels_last: true}}
eval: {{every_epochs: {evaluate}}}
checkpoint: {{every_steps: 100}}
tracking: {{mode: disabled}}
"""


def write_recipe(folder: Path, beton: Path, resolution: int, options: argparse.Namespace, evaluate: float) -> Path:
    values = {**vars(options), "compile": str(options.mode == "compile").lower()}
    values |= {"graphs": str(options.mode == "graphs").lower(), "val": beton, "evaluate": evaluate}
    if evaluate < FAR:  # as many images as ImageNet's validation set has
        values["val"] = [str(beton)] * round(options.evaluated / options.images)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(**{**values, "beton": beton, "resolution": resolution}))
    return recipe


def trainer(
    folder: Path, beton: Path, resolution: int, options: argparse.Namespace, *extra: str, evaluate: float = FAR
) -> dict[str, float]:
    recipe = write_recipe(folder, beton, resolution, options, evaluate)
    run = folder / f"run_{beton.stem}_{resolution}_{len(extra)}_{evaluate}"
    began, started = time.perf_counter(), time.time()
    command = [sys.executable, ROOT / "launch/train.py", recipe, f"output_dir={run}", *extra]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    rows = [row for row in read_rows(run) if "train/loss" in row]
    steady = [row for row in rows if row["step"] > options.warm_up]
    evaluations = [row["val/n"] / row["perf/eval_s"] for row in read_rows(run) if "perf/eval_s" in row]
    if evaluate < FAR:
        return {"images_per_second": statistics.median(evaluations[1:]), "evaluations": len(evaluations) - 1}
    first = rows[0]
    training = first["step"] * statistics.median(row["perf/step_ms"] for row in steady) / 1000
    return {
        "seconds_to_first_step": first["time"] - started - training,  # warm-up of the first steps included
        "images_per_second": statistics.median(row["perf/img_per_s"] for row in steady),
        "data_wait_share": statistics.median(row["perf/data_wait_frac"] for row in steady),
        "seconds_in_all": time.perf_counter() - began,
    }


def resident(resolution: int, options: argparse.Namespace) -> dict[str, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(options.precision)
    torch.backends.cudnn.benchmark = True
    torch._dynamo.reset()
    block = {
        "backbone": {"type": "ResNet", "depth": options.depth, "out_indices": (3,)},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": 10, "loss": {"type": "CrossEntropyLoss"}},
    }
    model = distcls.build_model(block, image_size=(resolution, resolution))
    model.to(device=device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5, fused=device.type == "cuda"
    )
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    if options.mode == "compile":
        model.compile()
    images = torch.randn(options.batch, 3, resolution, resolution, device=device, dtype=half or torch.float32)
    images = images.to(memory_format=torch.channels_last)
    target = torch.randint(0, 10, (options.batch,), device=device)
    if options.mode == "graphs" and device.type == "cuda":
        with torch.autocast(device.type, half, enabled=half is not None, cache_enabled=False):
            torch.cuda.make_graphed_callables(model.backbone, (images.clone(),))

    def steps(count: int) -> None:
        for _ in range(count):
            with torch.autocast(device.type, half, enabled=half is not None):
                loss = model(images, target)["loss"]
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    steps(10)
    windows = []
    for _ in range(max(2, (options.steps - options.warm_up) // 20)):
        began = time.perf_counter()
        steps(20)
        windows.append(20 * options.batch / (time.perf_counter() - began))
    return {"images_per_second": statistics.median(windows)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--resolutions", type=int, nargs="+", default=[224, 160])
    arguments.add_argument("--cases", nargs="+", choices=IMAGES, default=list(IMAGES))
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--images", type=int, default=5120)
    arguments.add_argument("--warm-up", type=int, default=60, help="steps: compilation and the first windows")
    arguments.add_argument("--evaluated", type=int, default=50_000, help="images of --evaluation")
    arguments.add_argument("--depth", type=int, default=50)
    arguments.add_argument("--precision", default="fp16")
    arguments.add_argument("--mode", choices=["eager", "graphs", "compile"], default="graphs")
    arguments.add_argument("--ffcv", action="store_true", help="beside a loop in the style of ffcv-imagenet; on a GPU")
    arguments.add_argument("--evaluation", action="store_true", help="also evaluate raw images")
    arguments.add_argument("--ema", action="store_true", help="a further run with a moving average")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    machine = {"device": device, "cores": len(os.sched_getaffinity(0))}
    machine |= {package: version(package) for package in ("torch", "accelerate", "numba", "ffcv")}
    default = Path(__file__).parent / "results" / f"train_{'gpu' if torch.cuda.is_available() else 'cpu'}.json"
    out = options.out or default
    rows: dict[str, dict[str, float]] = {}

    def report(name: str, values: dict[str, float]) -> None:
        gc.collect()  # a graph holds its memory, which the next run needs
        torch.cuda.empty_cache()
        rows[name] = values
        out.write_text(
            json.dumps({"machine": machine, "options": {**vars(options), "out": str(out)}, "rows": rows}, indent=1)
            + "\n"
        )
        print(f"{name:34}", "  ".join(f"{key} {value:10.3f}" for key, value in values.items()), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in options.cases:
            height, width, mode = IMAGES[case]
            convert(MadeUp(options.images, height, width, small=False), folder / f"{case}.beton", write_mode=mode)
        for resolution in options.resolutions:
            ceiling = resident(resolution, options)
            report(f"resident batch @{resolution}", ceiling)
            if options.ffcv:
                cores = len(os.sched_getaffinity(0))
                style = ffcv_style(
                    folder / "jpeg.beton", resolution, options.batch, options.steps, options.warm_up, cores
                )
                report(f"ffcv-imagenet style, jpeg @{resolution}", style)
            for case in options.cases:
                extras = [(), ("train.ema.decay=0.999",)] if options.ema else [()]
                for extra in extras:
                    values = trainer(folder, folder / f"{case}.beton", resolution, options, *extra)
                    values["share_of_resident"] = values["images_per_second"] / ceiling["images_per_second"]
                    report(f"trainer, {case} @{resolution}{' with EMA' * bool(extra)}", values)
        if options.evaluation:
            raw = folder / "raw.beton"
            report(
                "evaluation, raw @224", trainer(folder, raw, 224, options, evaluate=60 * options.batch / options.images)
            )


if __name__ == "__main__":
    main()
