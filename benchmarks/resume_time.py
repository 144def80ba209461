"""Time to resume at 1% and at 99% of an epoch of one million samples, compared with a new run.

    python benchmarks/resume_time.py [--repeats 5] [--shard 100000] [--folder DIR]

Ten copies of a .beton of 100,000 images of 8 x 8 pixels (written by distcls) make an epoch of 1,000 steps of 1,000
samples. One run trains the whole epoch, with a checkpoint every 10 steps. Then a new run, a resume at step 10 and one
at step 990 take turns, each killed at its first row. Measured: from the command to the row of the first step (including
imports of Python and torch, and the weights), and from the end of loading the checkpoint to that row. Writes
benchmarks/results/resume_time.json.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from distcls.data.converting.convert import convert
from distcls.tracking.jsonl import read_events, read_lines

ROOT = Path(__file__).parents[1]
STEPS, SHARDS = 1000, 10
STARTS = {"new": 0, "at 1%": STEPS // 100, "at 99%": STEPS - STEPS // 100}
BACKBONE = """\
from torch import nn

from distcls.registry import BACKBONES


@BACKBONES.register
class OneConv(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU())
"""
RECIPE = """\
plugins: [./one_conv.py]
model:
  backbone: {{type: OneConv}}
  neck: {{type: GlobalAveragePooling}}
  head: {{type: LinearClsHead, num_classes: 10, loss: {{type: CrossEntropyLoss}}, topk: [1]}}
data:
  train: {{path: {shards}}}
  val: {{path: {val}, crop_ratio: 1.0}}
  resolution: 8
  augment: [{{type: RandomHorizontalFlip}}]
optimizer: {{type: SGD, lr: 0.1, momentum: 0.9}}
schedule: {{type: CosineWarmup, warmup_steps: 5}}
train: {{max_steps: {steps}, global_batch_size: {batch}, log_every_steps: 1}}
checkpoint: {{every_steps: {every}, keep: 1000}}
tracking: {{mode: disabled}}
"""


class Noise:
    """Random images of 8 x 8 pixels."""

    def __init__(self, number: int) -> None:
        self.class_names = [str(label) for label in range(10)]
        self.small, self.multi_label = True, False
        self._pixels = np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._pixels[index], index % 10

    def name_of(self, index: int) -> str:
        return f"image {index}"

    def pixels_of(self, index: int) -> int:
        return 64

    def fingerprint(self, indices: list[int] | None = None) -> str:
        return "noise"


def start(recipe: Path, run: Path, **options: Any) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    command: list[str | Path] = [sys.executable, ROOT / "launch/train.py", recipe, f"output_dir={run}"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, **options)


def measure(recipe: Path, source: Path, run: Path, step: int) -> dict[str, float]:
    """Resume from `step` of the run in `source`, or start a new run if it is 0; killed at its first row."""
    if step:
        shutil.copytree(source / "checkpoints" / f"step_{step:08d}", run / "checkpoints" / f"step_{step:08d}")
        state = json.loads((source / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**state, "status": "running"}))
    began = time.time()
    process = start(recipe, run)
    while not (rows := list(read_lines(run / "metrics.jsonl"))) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert [row["step"] for row in rows[:1]] == [step + 1], f"it did not go on at step {step}"
    resumed = [event["time"] for event in read_events(run) if event["kind"] == "resumed"]
    measured = {"command to first step": rows[0]["time"] - began}
    if resumed:
        measured["checkpoint loaded to first step"] = rows[0]["time"] - resumed[0]
    shutil.rmtree(run)
    return measured


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--shard", type=int, default=100_000, help="images of each of the ten shards")
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()

    taken: dict[str, list[dict[str, float]]] = {name: [] for name in STARTS}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        first = folder / "shard_0.beton"
        convert(Noise(options.shard), first, write_mode="raw")
        convert(Noise(1000), folder / "val.beton", write_mode="raw")
        shards = [first, *(folder / f"shard_{number}.beton" for number in range(1, SHARDS))]
        for copy in shards[1:]:
            for file in folder.glob("shard_0.*"):
                shutil.copyfile(file, folder / file.name.replace("shard_0", copy.stem))
        (folder / "one_conv.py").write_text(BACKBONE)
        recipe, source = folder / "recipe.yaml", folder / "whole"
        values = {"batch": options.shard * SHARDS // STEPS, "steps": STEPS, "every": STEPS // 100}
        recipe.write_text(RECIPE.format(shards=[str(shard) for shard in shards], val=folder / "val.beton", **values))
        began = time.perf_counter()
        assert start(recipe, source).wait() == 0
        print(f"one epoch of {options.shard * SHARDS:,} samples: {time.perf_counter() - began:.0f} s", flush=True)
        for repeat in range(options.repeats):
            for title, step in STARTS.items():
                run = folder / "run"
                run.mkdir()
                taken[title].append(measure(recipe, source, run, step))
                print(repeat, title, taken[title][-1], flush=True)
    medians = {
        title: {key: statistics.median(one[key] for one in values) for key in values[0]}
        for title, values in taken.items()
    }
    machine = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(), "torch": version("torch")}
    result = {"machine": machine, "samples": options.shard * SHARDS, "medians": medians, "seconds": taken}
    out = Path(__file__).parent / "results" / "resume_time.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
