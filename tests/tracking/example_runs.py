"""Run folders as training leaves them, made up: for the report's tests, and to look at its pages."""

import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path

from distcls.tracking.jsonl import MetricsLog

RECIPE = """\
name: {name}
plugins: []
output_dir: runs/{name}
model:
  backbone: {{type: ResNet, depth: {depth}, num_stages: 4, out_indices: [3], style: pytorch}}
  neck: {{type: GlobalAveragePooling}}
  head:
    type: LinearClsHead
    num_classes: 1000
    loss: {{type: CrossEntropyLoss, loss_weight: 1.0}}
    topk: [1, 5]
data:
  augment:
  - type: RandomResizedCrop
    scale: [0.08, 1.0]
  - type: RandomHorizontalFlip
    p: 0.5
optimizer: {{type: SGD, lr: {lr}, momentum: 0.9, weight_decay: 5e-05}}
schedule: {{type: CosineWarmup, warmup_epochs: 5}}
train: {{epochs: {epochs}, global_batch_size: 1024, precision: bf16, seed: 0}}
"""
VERSIONS = {"distcls": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "ffcv": "1.0.2", "wandb": "0.31.0"}
START = 1_700_000_000.0


def make_run(
    folder: Path,
    *,
    epochs: int = 90,
    steps_per_epoch: int = 1251,
    log_every: int = 50,
    attempts: tuple[tuple[int, int, str], ...] = ((0, 10**9, "finished"),),
    depth: int = 50,
    lr: float = 0.5,
    final: float = 0.77,
    nan_at: int | None = None,
    message: str = "",
) -> Path:
    """Write a run whose attempts each go from a step to a step and end with a status, an hour's wait between them."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name, depth=depth, lr=lr, epochs=epochs))
    noise, total, now = random.Random(folder.name), epochs * steps_per_epoch, START
    best, ended = 0.0, []
    for number, (first, last, status) in enumerate(attempts, 1):
        started, log = now, MetricsLog(folder, number, clock=lambda: now)  # noqa: B023 - the clock of the moment
        if number > 1:
            log.event("resumed", step=first, changed={})
        for step in range(first + 1, min(last, total) + 1):
            now += 0.55
            place = {"step": step, "epoch": round(step / steps_per_epoch, 6), "samples": step * 1024}
            done = step / total
            curve = 1 - math.exp(-5.5 * done)
            if step % log_every == 0:
                loss = 6.9 - 5.2 * curve**0.8 * (final / 0.77) + noise.gauss(0, 0.09)
                rate = lr * min(1, done * 18) * 0.5 * (1 + math.cos(math.pi * done))
                log.log(
                    place
                    | {
                        "train/loss": math.nan if step == nan_at else loss,
                        "train/top1": max(0.001, final * curve - 0.05 + noise.gauss(0, 0.012)),
                        "train/top5": max(0.005, min(0.99, final * curve + 0.12 + noise.gauss(0, 0.01))),
                        "optim/lr": rate,
                        "optim/grad_norm": 1.2 + 2 * math.exp(-9 * done) + abs(noise.gauss(0, 0.15)),
                        "perf/img_per_s": 9100 + noise.gauss(0, 140),
                        "perf/step_ms": 112.5 + noise.gauss(0, 1.5),
                        "perf/data_wait_frac": abs(noise.gauss(0.012, 0.006)),
                    }
                )
            if step % steps_per_epoch == 0:
                now += 21
                top1 = max(0.001, final * curve**0.9 + noise.gauss(0, 0.004))
                best = max(best, top1)
                val = {"val/loss": 6.9 - 5.6 * curve**0.8 * (final / 0.77), "val/top1": top1, "val/n": 50000}
                log.log(place | val | {"val/top5": min(0.999, top1 + 0.16), "best/val_top1": best, "perf/eval_s": 21.0})
                log.event("checkpoint", step=step, path=f"checkpoints/step_{step:08d}", seconds=0.8)
        host = {"host": f"node{number:02d}", "world_size": 8, "threads": 12, "versions": VERSIONS}
        ended.append({"status": status, "started": _iso(started), **host})
        if status not in ("running", "killed"):
            log.finish(status, message or None)
            ended[-1] |= {"ended": _iso(now), **({"message": message} if message else {})}
        now += 3600
    run = {"run_id": "a5e86192", "created": _iso(START), "attempts": ended, "status": ended[-1]["status"]}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
