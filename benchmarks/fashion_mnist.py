"""Accuracy and seconds of the Fashion-MNIST recipes over several seeds: whole runs, started as a user starts them.

    python benchmarks/fashion_mnist.py [RECIPE[+KEY=VALUE...] ...] [--seeds 0 1 2] [--limit-seconds 540]
        [--source FOLDER] [--runs runs/benchmark] [--no-warm-up] [-o benchmarks/results/fashion_mnist.json]

Runs seed by seed, each in a folder of its own below --runs; what is finished there is not run again. When the time is
up the run at work is sent SIGTERM, saves and leaves; the same command goes on with it. After each run all results are
written to the file and printed: validation top-1 of the last epoch by the recipe's own protocol (of the average of the
weights where there is one), each seed's, mean and standard deviation; and the seconds from the command to its end,
imports, evaluation and the files of weights included, tracking left out. Before the first run one of a few steps fills
the caches. --source: the four .gz files of Fashion-MNIST, converted to data/ if its files are not there.

One H100, ten minutes a command and thirty in all, runs/ kept between commands: the shortest first,

    1. python benchmarks/fashion_mnist.py fashion_mnist_fast fashion_mnist_fast+train.epochs=8 fashion_mnist_r18
    2. python benchmarks/fashion_mnist.py fashion_mnist_best          and again, until its three seeds are done

then `distcls recipe record runs/benchmark/fashion_mnist_r18_seed*` (and _best_, _fast_) and the recipes' headers. If a
run of r18 takes longer than 150 s, do seeds 0 and 1 of it and give best all that is left. On a CPU, to try it:

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
TO_SAVE = 60  # seconds for a run that was told to stop
USELESS = 20  # seconds: no run is begun for so few
WARM_UP = ["train.epochs=null", "train.max_steps=8", "schedule.warmup_epochs=0", "checkpoint.resume=never"]


@dataclass(frozen=True)
class Case:
    """A recipe with changes, as it stands on the command line: ``fashion_mnist_fast+train.epochs=8``.

    The recipe is one of recipes/ by its name, or a file.
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
    """One attempt, until `deadline` at most. What it took goes to a file beside the run's folder."""
    began = time.monotonic()
    process = subprocess.Popen(case.command(folder, f"train.seed={seed}"), cwd=ROOT)
    try:
        code = process.wait(deadline - began)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait(TO_SAVE)
    if code not in (0, 75, -signal.SIGTERM):  # the last: it was told to stop before it could listen
        sys.exit(f"{case.written}, seed {seed}: status {code}")
    file = whole_seconds(folder)
    spent = json.loads(file.read_text()) if file.exists() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([*spent, round(time.monotonic() - began, 2)]))


def whole_seconds(folder: Path) -> Path:
    """The file with the seconds of each attempt."""
    return folder.parent / f"{folder.name}.whole_seconds.json"


def results(case: Case, runs: Path, seeds: list[int]) -> dict:
    """What the finished runs of a case reached and took."""
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
    """Mean and standard deviation; runs that were cut have no time of their own."""
    if not values:
        return "cut"
    more = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{unit}{more}"


def report(cases: list[Case], options: argparse.Namespace) -> None:
    """Write and print what all cases have reached so far."""
    found = [results(case, options.runs, options.seeds) for case in cases]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python benchmarks/fashion_mnist.py", *sys.argv[1:]])
    options.output.write_text(json.dumps({"command": command, "cases": found}, indent=1) + "\n")
    head = "| recipe | n | top-1 | each | whole run | on |\n|---|---|---|---|---|---|"
    print("\n".join(["", head, *map(line, found)]), flush=True)


def convert(source: Path) -> None:
    """data/fashion_mnist_{train,val}.beton, those that are not there."""
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
