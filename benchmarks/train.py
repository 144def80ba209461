"""The complete trainer, launch/train.py on .beton files, compared with reference loops, each in its own process.

    python benchmarks/train.py [--resolutions 224 160] [--steps 200] [--batch 512] [--precision fp16] [--cases raw jpeg]
        [--mode eager | graphs | compile] [--beside ffcv dataloader] [--rounds 1] [--evaluation] [--ema]

The trainer runs with all features: loading, augmentation, logging every 20 steps, checkpoints and, with --ema, a moving
average of the weights. Its throughput is the median of its own rows after --warm-up steps. It is always compared with
the same classifier, optimizer, precision and mode on one batch that stays on the device, the upper bound of any
trainer, and with the loops of --beside (plain_loops.py). With several rounds, figures are medians over the rounds, and
ratios are taken within a round. Rows are written to --out as they are measured. A small model, for a CPU:

    python benchmarks/train.py --depth 18 --resolutions 64 --batch 32 --images 640 --steps 100 --warm-up 20 --rounds 5
        --precision fp32 --mode eager --beside dataloader
"""

import argparse
import json
import os
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

from distcls.data.converting.convert import convert
from distcls.tracking.jsonl import read_rows

HERE = Path(__file__).resolve().parent
IMAGES = {"raw": (256, 341, "raw"), "jpeg": (375, 500, "jpg")}
PEERS = {"ffcv": ("ffcv-imagenet style, jpeg", "jpeg.beton"), "dataloader": ("torch DataLoader, jpeg", "jpegs")}
FAR = 100_000.0  # epochs: no evaluation
#: launch/train.py makes waiting OpenMP threads sleep; for a fair comparison the reference loops do so, too
ALIKE = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
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
    run = Path(tempfile.mkdtemp(dir=folder))
    began, started = time.perf_counter(), time.time()
    command: list[str | Path] = [sys.executable, HERE.parent / "launch/train.py", recipe, f"output_dir={run}", *extra]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ALIKE)
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


def plain(loop: str, resolution: int, options: argparse.Namespace, data: Path | None = None) -> dict[str, float]:
    """Throughput of a loop of plain_loops.py."""
    kept = ("batch", "steps", "warm_up", "depth", "precision", "mode")
    said = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in kept]
    command: list[str | Path] = [sys.executable, HERE / "plain_loops.py", loop, f"--resolution={resolution}", *said]
    done = subprocess.run(
        [*command, f"--data={data}"] if data else command, check=True, stdout=subprocess.PIPE, text=True, env=ALIKE
    )
    return {"images_per_second": float(done.stdout.split()[-1])}


def one_round(folder: Path, resolution: int, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """(name, figures) of each loop at this resolution, measured one after another."""
    rates = {"resident": plain("resident", resolution, options)}
    yield f"resident batch @{resolution}", rates["resident"]
    for loop in options.beside:
        rates[loop] = plain(loop, resolution, options, folder / PEERS[loop][1])
        yield f"{PEERS[loop][0]} @{resolution}", rates[loop]
    for case in options.cases:
        for extra in [(), ("train.ema.decay=0.999",)] if options.ema else [()]:
            values = trainer(folder, folder / f"{case}.beton", resolution, options, *extra)
            for loop, row in rates.items():
                what = "share_of_resident" if loop == "resident" else f"over_{loop}"
                values[what] = values["images_per_second"] / row["images_per_second"]
            yield f"trainer, {case} @{resolution}{' with EMA' * bool(extra)}", values


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
    arguments.add_argument("--beside", nargs="+", choices=PEERS, default=[], help="loops that others have")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--evaluation", action="store_true", help="also evaluate raw images")
    arguments.add_argument("--ema", action="store_true", help="a further run with a moving average")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    if "ffcv" in options.beside and "jpeg" not in options.cases:
        arguments.error("--beside ffcv wants --cases jpeg, whose file it reads")

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    machine = {"device": device, "cores": len(os.sched_getaffinity(0))}
    machine |= {package: version(package) for package in ("torch", "accelerate", "numba", "ffcv")}
    default = HERE / "results" / f"train_{'gpu' if torch.cuda.is_available() else 'cpu'}.json"
    out = options.out or default
    rounds: dict[str, list[dict[str, float]]] = {}

    def report(name: str, values: dict[str, float]) -> None:
        rounds.setdefault(name, []).append(values)
        said = {key: value for key, value in vars(options).items() if key != "out"}
        found = {"machine": machine, "options": said, "rows": {name: medians(rounds[name]) for name in rounds}}
        out.write_text(json.dumps({**found, "rounds": rounds}, indent=1) + "\n")
        print(f"{name:34}", "  ".join(f"{key} {value:10.3f}" for key, value in values.items()), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in options.cases:
            height, width, mode = IMAGES[case]
            convert(MadeUp(options.images, height, width, small=False), folder / f"{case}.beton", write_mode=mode)
        if "dataloader" in options.beside:
            MadeUp(options.images, *IMAGES["jpeg"][:2], small=False).save_jpegs(folder / "jpegs")
        for resolution in options.rounds * options.resolutions:
            for name, values in one_round(folder, resolution, options):
                report(name, values)
        if options.evaluation:
            every = 60 * options.batch / options.images
            report("evaluation, raw @224", trainer(folder, folder / "raw.beton", 224, options, evaluate=every))


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    main()
