"""Accuracy and time of the Fashion-MNIST recipes over several seeds: complete runs, started as a user starts them.

    python benchmarks/fashion_mnist.py [RECIPE[+KEY=VALUE...] ...] [--seeds 0 1 2] [--limit-seconds 540]
        [--source FOLDER] [--runs runs/benchmark] [--no-warm-up] [-o benchmarks/results/fashion_mnist.json]

Seeds run one after another, each in its own folder below --runs; finished runs there are skipped. At the time limit the
current run is sent SIGTERM, saves and exits; the same command resumes it. After each run all results are printed and
written to the output file: validation top-1 of the last epoch under the recipe's own protocol (of the averaged weights
if there are any), per seed, with mean and standard deviation; and the seconds from start to exit of the command,
including imports, evaluation and writing of weights, with tracking disabled. A warm-up run of a few steps fills the
caches first. --source: folder with the four .gz files of Fashion-MNIST, converted to data/ unless that is done.

On one H100, with ten minutes per command and thirty in total, keeping runs/ between commands, start with the shortest:

    1. python benchmarks/fashion_mnist.py fashion_mnist_fast fashion_mnist_fast+train.epochs=13 fashion_mnist_r18
    2. python benchmarks/fashion_mnist.py fashion_mnist_best          and again, until its three seeds are done

Then run `distcls recipe record runs/benchmark/fashion_mnist_r18_seed*` (and _best_, _fast_), and update the recipes'
headers. If a run of r18 takes longer than 150 s, do only its seeds 0 and 1 and give best the remaining time. To try it
on a CPU:

    python benchmarks/fashion_mnist.py fashion_mnist_quick+train.epochs=0.1 --seeds 0 1
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from distcls.engine.records.measured_runs import MeasuredRuns
from distcls.engine.records.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
RECIPES = ("fashion_mnist_fast", "fashion_mnist_r18", "fashion_mnist_best")
TO_SAVE = 60  # seconds that a run gets to save and exit
USELESS = 20  # seconds: with less time left no run is started
WARM_UP = ["train.epochs=null", "train.max_steps=8", "schedule.warmup_epochs=0", "checkpoint.resume=never"]


@dataclass(frozen=True)
class Case:
    """A recipe with overrides, as written on the command line: ``fashion_mnist_fast+train.epochs=8``.

    The recipe is a name in recipes/, or a .yaml file.
    """

    written: str

    @property
    def recipe(self) -> Path:
        name = self.written.partition("+")[0]
        return Path(name).resolve() if name.endswith(".yaml") else ROOT / "recipes" / f"{name}.yaml"

    @property
    def changes(self) -> list[str]:
        return self.written.split("+")[1:]

    def folder(self, runs: Path, seed: int) -> Path:
        changes = "".join(f"+{change.replace('/', '_')}" for change in self.changes)
        return runs / f"{self.recipe.stem}{changes}_seed{seed}"

    def command(self, folder: Path, *changes: str) -> list[str]:
        fixed = [f"output_dir={folder}", "tracking.mode=disabled"]
        return [sys.executable, str(ROOT / "launch/train.py"), str(self.recipe), *fixed, *self.changes, *changes]


def status(folder: Path) -> str | None:
    record = RunFolder(folder).read() if folder.is_dir() else None
    return record["status"] if record else None


def run(case: Case, folder: Path, seed: int, deadline: float) -> None:
    """One attempt, until `deadline` at most. Its duration is appended to a file next to the run's folder."""
    began = time.monotonic()
    process = subprocess.Popen(case.command(folder, f"train.seed={seed}"), cwd=ROOT)
    try:
        code = process.wait(deadline - began)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait(TO_SAVE)
    if code not in (0, 75, -signal.SIGTERM):  # the last: stopped before its signal handler was installed
        sys.exit(f"{case.written}, seed {seed}: status {code}")
    file = whole_seconds(folder)
    spent = json.loads(file.read_text()) if file.exists() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([*spent, round(time.monotonic() - began, 2)]))


def whole_seconds(folder: Path) -> Path:
    """The file with the duration of each attempt in seconds."""
    return folder.parent / f"{folder.name}.whole_seconds.json"


def results(case: Case, runs: Path, seeds: list[int]) -> dict:
    """Accuracy and time of a case's finished runs."""
    done = [folder for seed in seeds if status(folder := case.folder(runs, seed)) == "finished"]
    if not done:
        return {"case": case.written, "runs": []}
    found = [asdict(one) for one in MeasuredRuns.of(done).runs]
    for one, folder in zip(found, done, strict=True):
        curves = one["curves"]
        one["top1"] = (curves.get("val_ema/top1") or curves["val/top1"])[-1][1]
        one["whole_seconds"] = json.loads(whole_seconds(folder).read_text())
    return {"case": case.written, "runs": found}


def line(result: dict) -> str:
    """A row of the table."""
    runs = result["runs"]
    if not runs:
        return f"| {result['case']} | 0 | | | | |"
    top1 = [100 * one["top1"] for one in runs]
    whole = [one["whole_seconds"][0] for one in runs if len(one["whole_seconds"]) == 1]
    cells = [result["case"], str(len(runs)), spread(top1, "%"), ", ".join(f"{one:.2f}" for one in top1)]
    return f"| {' | '.join([*cells, spread(whole, ' s'), runs[0]['hardware']])} |"


def spread(values: list[float], unit: str) -> str:
    """Mean and standard deviation; "cut" without values, as interrupted runs have no meaningful time."""
    if not values:
        return "cut"
    more = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{unit}{more}"


def report(cases: list[Case], options: argparse.Namespace) -> None:
    """Write and print the results of all cases so far."""
    found = [results(case, options.runs, options.seeds) for case in cases]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python benchmarks/fashion_mnist.py", *sys.argv[1:]])
    options.output.write_text(json.dumps({"command": command, "cases": found}, indent=1) + "\n")
    head = "| recipe | n | top-1 | each | whole run | on |\n|---|---|---|---|---|---|"
    print("\n".join(["", head, *map(line, found)]), flush=True)


def convert(source: Path) -> None:
    """Write data/fashion_mnist_{train,val}.beton, unless they exist."""
    for split in ("train", "val"):
        beton = ROOT / f"data/fashion_mnist_{split}.beton"
        if not beton.exists():
            beton.parent.mkdir(exist_ok=True)
            how = ["--split", split, "--source-type", "fashion-mnist"]
            subprocess.run(
                [sys.executable, "-m", "distcls", "data", "convert", source, beton, *how], cwd=ROOT, check=True
            )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(RECIPES), metavar="RECIPE[+KEY=VALUE...]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit-seconds", type=float, default=540)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/benchmark")
    parser.add_argument("--warm-up", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks/results/fashion_mnist.json")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.limit_seconds
    options.runs = options.runs.resolve()
    cases = [Case(written) for written in options.cases]
    if options.source is not None:
        convert(options.source.resolve())
    warm = not options.warm_up
    for case in cases:
        for seed in options.seeds:
            folder = case.folder(options.runs, seed)
            if status(folder) == "finished" or deadline - time.monotonic() < USELESS:
                continue
            if not warm:
                command = case.command(options.runs / f"warm_up_{time.time_ns()}", *WARM_UP)
                subprocess.run(command, cwd=ROOT, check=True)
                warm = True
            run(case, folder, seed, deadline)
            report(cases, options)
    report(cases, options)


if __name__ == "__main__":
    main(sys.argv[1:])
