"""All measurements on one GPU, in phases of less than ten minutes each, the most important first.

    python benchmarks/gpu_session.py [tests ceiling train strategies data start fashion] [--limit 570] [--out DIR]
        [--small]
    python benchmarks/gpu_session.py --summary

Without names all phases run, one after another. Every script writes its rows to DIR (benchmarks/results/session) as
they are measured, so an interrupted phase, by --limit or otherwise, keeps its results; its output is in <phase>.log. At
the end, or with --summary only, the figures are printed next to their goals. --small runs each phase at a size for
CPUs, as a smoke test.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = [
    "torch",
    "torchvision",
    "triton",
    "accelerate",
    "ffcv",
    "cv2",
    "numba",
    "pydantic",
    "yaml",
    "safetensors",
    "rich",
]
NEEDED += ["typer", "timm", "torchmetrics", "psutil", "wandb", "pytest", "deepspeed", "pynvml"]
GPU_TESTS = [
    "tests/engine/building/test_cuda_graphs.py",
    "tests/models/test_fused_batch_norm.py",
    "tests/data/decoding/test_decode_gpu.py",
    "tests/data/augmenting/test_pixels_gpu.py",
    "tests/engine/test_logging_waits.py",
]
TRIALS = ["graphs", "all", "read-ahead", "descending", "wide-stem", "warps4", "eager"]
TINY = ["--batch", "2", "--resolutions", "32", "--depth", "18"]
FEW = ["--steps", "10"]
SHORT = ["--images", "12", "--steps", "40", "--warm-up", "20", "--precision", "fp32", "--cases", "raw"]

ON_JPEGS = ["--seconds", "6", "--workers", "4", "--cases", "jpeg", "--resolutions", "224"]
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider"]

#: phase -> commands for a GPU, small ones for a CPU; rows of `name: script` go to name.json
PHASES: dict[str, tuple[list[list[str]], list[list[str]]]] = {
    "tests": ([[*PYTEST, *GPU_TESTS]], []),
    "ceiling": (
        [
            ["ceiling_224: ceiling.py", "--resolutions", "224", "--modes", *TRIALS],
            ["ceiling_160: ceiling.py", "--resolutions", "160", "--modes", "graphs", "all"],
            ["ceiling_1024: ceiling.py", "--batch", "1024", "--resolutions", "224", "--modes", "graphs"],
        ],
        [["ceiling_224: ceiling.py", *TINY, "--steps", "1", "--modes", "graphs", "all"]],
    ),
    "train": (
        [["train: train.py", "--steps", "160", "--beside", "ffcv", "--evaluation"]],
        [["train: train.py", *TINY, *SHORT]],
    ),
    "strategies": ([["strategies: strategies.py"]], [["strategies: strategies.py", "--cases", "ddp fp32", *FEW]]),
    "data": (
        [
            ["data: gpu_data.py", "--seconds", "6"],
            ["data_area: gpu_data.py", "--seconds", "4", "--no-training", "--interpolation", "ffcv_area"],
            ["data_few_cores: gpu_data.py", *ON_JPEGS],
            ["data_few_cores_share: gpu_data.py", *ON_JPEGS, "--decode-share", "0.25"],
        ],
        [["data: gpu_data.py", *TINY, "--images", "4", "--seconds", "0", "--workers", "1"]],
    ),
    "start": (
        [["start: start.py", "--repeats", "3"]],
        [["start: start.py", "--repeats", "1", "--cases", "python"]],
    ),
    "fashion": ([["fashion_mnist.py"]], []),
}


def run_phase(name: str, commands: list[list[str]], out: Path, limit: float) -> bool:
    """Run the commands one after another for at most `limit` seconds. Returns whether all succeeded."""
    end, well = time.monotonic() + limit, True
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    log = out / f"{name}.log"
    for first, *arguments in commands:
        target, _, script = first.rpartition(": ")
        command = [sys.executable, str(HERE / script) if script.endswith(".py") else script, *arguments]
        if target:
            command += ["--out", str(out / f"{target}.json")]
        print(f"== {name}: {' '.join(command[1:])}", flush=True)
        began = time.monotonic()
        with open(log, "a") as file:
            before = file.tell()
            child = subprocess.Popen(
                command, cwd=HERE.parent, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            status = ended(child, end - began)
        print(log.read_bytes()[before:].decode(errors="replace")[-4000:])
        print(f"== {name}: status {status} after {time.monotonic() - began:.0f} s", flush=True)
        well = well and status == 0
    return well


def ended(child: subprocess.Popen, seconds: float) -> int:
    """Wait for the child and return its status; after `seconds`, end it and all its processes."""
    try:
        return child.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


def summary(out: Path) -> Iterator[tuple[str, str, str]]:
    """(what, measured, goal) for all rows that exist."""

    def rows(name: str) -> dict[str, dict]:
        file = out / f"{name}.json"
        return json.loads(file.read_text())["rows"] if file.exists() else {}

    for name in ("ceiling_224", "ceiling_160", "ceiling_1024"):
        for mode, row in rows(name).items():
            batch = " of 1024" if name.endswith("1024") else ""
            goal = ">= 7,150" if mode.endswith("@224") else ""
            yield f"ceiling{batch}, {mode}", f"{row['images_per_second']:,.0f} images/s", goal
    for name, row in rows("train").items():
        speed, resolution = row["images_per_second"], name.rpartition("@")[2]
        goal = {"trainer, raw": ">= 0.98 of it", "trainer, jpeg": ">= 0.95 of it"}.get(name.partition(" @")[0], "")
        goal = {"trainer, jpeg @160": ">= 8,500", "evaluation, raw @224": ">= 15,000"}.get(name, goal)
        share = f", {row['share_of_resident']:.3f} of resident" if "share_of_resident" in row else ""
        yield name, f"{speed:,.0f} images/s{share}", goal
        if name.startswith("trainer, raw") and "over_ffcv" in row:
            goal = {"224": ">= 1.37", "160": ">= 1.85"}.get(resolution, "")
            yield "... over the ffcv-imagenet style", f"{row['over_ffcv']:.2f}", goal
        if "seconds_to_first_step" in row:
            yield "... to the first step", f"{row['seconds_to_first_step']:.0f} s", "<= 15"
    for name in ("data", "data_area", "data_few_cores", "data_few_cores_share"):
        for what, row in rows(name).items():
            goal = ">= 7,500" if (name, what) == ("data", "jpeg 375x500 q90: loader alone @224") else ""
            share = f", {row['share_of_resident']:.3f} of resident" if "share_of_resident" in row else ""
            yield f"{name}, {what}", f"{row['images_per_second']:,.0f} images/s{share}", goal
    for name, row in rows("strategies").items():
        loss = f", loss {row['loss']:.4f}" if "loss" in row else ""
        yield name, f"status {row['status']}{loss}", "status 0"
    for name, row in rows("start").items():
        if "command to first step" in row:
            measured = f"{row['command to first step']:.1f} s, to the end {row['command to end']:.1f}"
            yield f"start, {name}: to the first step", measured, "<= 15"
    tests = out / "tests.log"
    if tests.exists():
        yield "tests on the GPU", tests.read_text().strip().rpartition("\n")[2], "0 failed"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("phases", nargs="*", metavar="PHASE", help=", ".join(PHASES))
    arguments.add_argument("--limit", type=float, default=570, help="seconds of a phase")
    arguments.add_argument("--out", type=Path, default=HERE / "results" / "session")
    arguments.add_argument("--small", action="store_true", help="in a size for CPUs")
    arguments.add_argument("--summary", action="store_true", help="only show what is there")
    options = arguments.parse_args()
    unknown = set(options.phases) - set(PHASES)
    if unknown:
        arguments.error(f"no such phase: {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"not installed here, without which some phases fail: {', '.join(missing)}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    out, well = options.out.resolve(), True
    for name in [] if options.summary else options.phases or PHASES:
        well = run_phase(name, PHASES[name][options.small], out, options.limit) and well
    for what, measured, goal in summary(out):
        print(f"{what:56} {measured:42} {goal}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
