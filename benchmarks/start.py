"""Time of a short run from the command to its first step and from there to its end, with warm caches.

    python benchmarks/start.py [--recipe RECIPE] [--repeats 5] [--cases "python" "accelerate launch" ...] [--out FILE]

A recipe trains for one step on synthetic images: fashion_mnist_fast on a GPU, fashion_mnist_quick without one. After a
round that fills the caches, it is started in each of these ways in turn:

    torch                  python importing torch, a lower bound for every run
    python                 python launch/train.py
    accelerate-launch      the launcher as its own command
    accelerate launch      the same through `accelerate`, which imports all of its commands first
    python, W&B offline    python launch/train.py with tracking.mode=offline
    distcls --help, distcls recipe check, distcls report

The phases of a run are separated by what it writes: `recipe.yaml` in the run folder (checks are done, the process group
exists), the event `evaluation` (everything is built), the training row (the step is done), the evaluation's row, and
the event `finished` (weights and checkpoint are on disk); the rest is drawing the report and exiting. Results are
medians of wall seconds, which depend on other load, and of CPU seconds over all processes, which hardly do.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from made_up import MadeUp

from distcls.data.converting.convert import convert
from distcls.tracking.jsonl import read_events, read_rows

ROOT = Path(__file__).parents[1]
TRAIN = str(ROOT / "launch/train.py")
ONE_STEP = ["train.epochs=null", "train.max_steps=1", "schedule.warmup_epochs=0"]
LAUNCHER = ["--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
LAUNCHER += [] if torch.cuda.is_available() else ["--cpu"]
DISTCLS = [sys.executable, "-m", "distcls"]
RUNS = {
    "python": [sys.executable, TRAIN],
    "accelerate-launch": [sys.executable, "-m", "accelerate.commands.launch", *LAUNCHER, TRAIN],
    "accelerate launch": [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *LAUNCHER, TRAIN],
    "python, W&B offline": [sys.executable, TRAIN],
}
OTHERS = ("torch", "distcls --help", "distcls recipe check", "distcls report")


def spend(command: Sequence[str | Path]) -> dict[str, float]:
    """Run a command. Returns its wall seconds and the CPU seconds of all its processes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"command to end": seconds, "CPU": cpu}


def run(command: list[str], recipe: Path, changes: list[str], folder: Path) -> dict[str, float]:
    """Time a new run and its phases, taken from the files that it writes."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.time()
    spent = spend([*command, recipe, *changes, f"output_dir={folder}"])
    events = {event["kind"]: event["time"] for event in read_events(folder)}
    trained, evaluated = (
        next(row["time"] for row in read_rows(folder) if key in row) for key in ("train/loss", "val/loss")
    )
    marks = {
        "imports, checks": began,
        "building": (folder / "recipe.yaml").stat().st_mtime,
        "first step": events["evaluation"],
        "evaluation": trained,
        "saving": evaluated,
        "leaving": events["finished"],
    }
    ends = [*list(marks.values())[1:], began + spent["command to end"]]
    parts = {name: end - start for (name, start), end in zip(marks.items(), ends, strict=True)}
    return {"command to first step": trained - began, **spent, **parts}


def measure(case: str, recipe: Path, changes: list[str], folder: Path) -> dict[str, float]:
    if case in RUNS:
        mode = "offline" if case.endswith("offline") else "disabled"
        return run(RUNS[case], recipe, [*changes, f"tracking.mode={mode}"], folder / case)
    commands: dict[str, list[str | Path]] = {
        "torch": [sys.executable, "-c", "import torch"],
        "distcls --help": [*DISTCLS, "--help"],
        "distcls recipe check": [*DISTCLS, "recipe", "check", recipe, *changes],
        "distcls report": [*DISTCLS, "report", folder / "python", "-o", folder / "report.html"],
    }
    return spend(commands[case])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    usual = ROOT / "recipes" / f"fashion_mnist_{'fast' if on_gpu else 'quick'}.yaml"
    parser.add_argument("--recipe", type=Path, default=usual)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=[*RUNS, *OTHERS], default=[*RUNS, *OTHERS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/start.json")
    options = parser.parse_args()
    # a run first, because `distcls report` needs one
    cases = list(dict.fromkeys(["python", *options.cases]))
    taken: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, number in (("train", 1024), ("val", 256)):
            convert(MadeUp(number, 28, 28, small=False), folder / f"{split}.beton", write_mode="raw", workers=1)
        changes = [*ONE_STEP, *(f"data.{split}.path={folder / split}.beton" for split in ("train", "val"))]
        for repeat in range(options.repeats + 1):
            for case in cases:
                found = measure(case, options.recipe, changes, folder)
                taken[case] += [found] if repeat else []  # the first round fills the caches
                print(repeat, case, {part: round(seconds, 2) for part, seconds in found.items()}, flush=True)
    rows = {
        case: {part: round(statistics.median(one[part] for one in found), 3) for part in found[0]}
        for case, found in taken.items()
    }
    machine = {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        **{package: version(package) for package in ("torch", "accelerate", "wandb")},
    }
    result = {"machine": machine, "recipe": options.recipe.name, "repeats": options.repeats, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**result, "seconds": taken}, indent=1) + "\n")
    columns = max(map(list, rows.values()), key=len)
    print("\n| case |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    for case, row in rows.items():
        print("|", " | ".join([case, *(f"{row[part]:.2f}" if part in row else "" for part in columns)]), "|")


if __name__ == "__main__":
    main()
