"""Cost of logging per training step; the goal is at most 0.5% of a step at `train.log_every_steps: 50`.

    python benchmarks/logging_cost.py [--step-ms 40] [--rounds 40] [--no-wandb] [--out FILE]

Times what a step spends on logging, on the available device: phase marks, adding to the window's sums, and every 50
steps closing the window and writing its row to metrics.jsonl and to real wandb (offline, with its service running). The
gradient norm of a logged step is measured separately, on a ResNet-50's gradients; on a CPU, where a ResNet-50 step
takes seconds, it is not included in the share. The share is relative to a step of `--step-ms` milliseconds: ResNet-50
at 224 with 256 images takes 40 ms on an H100 (docs/performance.md).
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from distcls.engine.performance.bottleneck import Settings
from distcls.engine.performance.device_facts import DeviceFacts
from distcls.engine.rows import Rows
from distcls.engine.totals import Totals
from distcls.tracking.console import Console
from distcls.tracking.jsonl import MetricsLog
from distcls.tracking.trackers import Trackers
from distcls.tracking.wandb import WandbTracker

EVERY = 50
SETTINGS = Settings(8, 8, "bf16", True, 1, 1024, 1.0, 1000, torch.cuda.is_available())


def job(device: torch.device, trackers: Trackers, console: Console) -> Any:
    """A stand-in for a job with what Rows needs."""

    def log(row):
        trackers.log(row)
        console.train_row(row)

    return SimpleNamespace(
        device=device,
        rank=0,
        world_size=1,
        global_batch_size=1024,
        strategy=SimpleNamespace(model=torch.nn.Linear(1, 1)),
        accelerator=SimpleNamespace(scaler=None),
        train_loader=SimpleNamespace(mark=lambda phase: None, resolution_at=lambda step: 224),
        learning_rates={"optim/lr": 0.5},
        device_facts=DeviceFacts(device, peak_flops=1e15, training_flops={224: 2.4e10}),
        settings=SETTINGS,
        trackers=trackers,
        console=console,
        log=log,
        position=lambda step: {"step": step, "epoch": step / 1251, "samples": step * 1024},
    )


def cost_of_steps(device: torch.device, rounds: int, wandb: bool) -> list[float]:
    """Milliseconds of logging per step, one value for each window of EVERY steps."""
    found = []
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "console.txt"), "w") as terminal:
        console = Console(file=terminal)
        backends: list = [MetricsLog(Path(folder))]
        if wandb:
            backends.append(WandbTracker(Path(folder), "cost", mode="offline", note=lambda text: None))
        trackers = Trackers(backends)
        rows_job = job(device, trackers, console)
        console.start(rounds * EVERY, 1251)
        rows, window = Rows(rows_job, 0), Totals(device, 1)
        values = {name: torch.ones((), device=device) for name in ("loss", "top1", "top5")}
        norm = torch.ones((), device=device)
        for number in range(rounds):
            began = time.perf_counter()
            for step in range(number * EVERY + 1, (number + 1) * EVERY + 1):
                for phase in ("data", "copy", "compute"):
                    rows_job.train_loader.mark(phase)
                window.add(values, 1024)
                if step % EVERY == 0:
                    rows.begin(step, window.reduce(), 0.5, norm)
                rows.write(all_now=False)
                console.advance(step)
            found.append(1000 * (time.perf_counter() - began) / EVERY)
        rows.write(all_now=True)
        trackers.finish("finished")
    return found[rounds // 10 :]  # the first tenth is warm-up


def cost_of_norm(device: torch.device) -> float:
    """Milliseconds of one gradient norm over a ResNet-50's 161 tensors."""
    from torchvision.models import resnet50

    parameters = list(resnet50().to(device).parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    times = []
    for _ in range(20):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(parameters, float("inf"))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=40.0)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-wandb", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = cost_of_steps(device, arguments.rounds, not arguments.no_wandb)
    norm, on_gpu = cost_of_norm(device), device.type == "cuda"
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "wandb": not arguments.no_wandb,
        "log_every_steps": EVERY,
        "windows": len(steps),
        "ms_per_step_median": round(statistics.median(steps), 4),
        "ms_per_step_worst": round(max(steps), 4),
        "gradient_norm_ms": round(norm, 3),
        "step_ms": arguments.step_ms,
        "share_of_step": round((statistics.median(steps) + on_gpu * norm / EVERY) / arguments.step_ms, 5),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
