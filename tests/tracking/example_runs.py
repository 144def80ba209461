"""Run folders as training leaves them, made up: for the report's tests, and to look at its pages."""

import json
import math
import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image, ImageDraw

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
ADVICE = {
    "data": "the loader is late: raise data.workers, or store smaller images",
    "compute": "nothing to change first: the GPU is busy",
}
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
    start: float = START,
) -> Path:
    """Write a run whose attempts each go from a step to a step and end with a status, an hour's wait between them."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name, depth=depth, lr=lr, epochs=epochs))
    noise, total, now = random.Random(folder.name), epochs * steps_per_epoch, start
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
                shares = {
                    "compute": 0.78,
                    "data": 0.05 + 0.3 * math.exp(-8 * done),
                    "copy": 0.01,
                    "communication": 0.06,
                }
                shares |= {"evaluation": 0.02, "checkpoint": 0.01}
                whole = sum(shares.values())
                log.log(place | {f"perf/share_{name}": share / whole for name, share in shares.items()})
                name = "data" if shares["data"] > 0.15 else "compute"
                advice = ADVICE[name]
                log.event("bottleneck", step=step, bottleneck=name, share=round(shares[name] / whole, 4), advice=advice)
                log.event("checkpoint", step=step, path=f"checkpoints/step_{step:08d}", seconds=0.8)
        host = {"host": f"node{number:02d}", "world_size": 8, "threads": 12, "versions": VERSIONS}
        ended.append({"status": status, "started": _iso(started), **host})
        if status not in ("running", "killed"):
            log.finish(status, message or None)
            ended[-1] |= {"ended": _iso(now), **({"message": message} if message else {})}
        now += 3600
    run = {"run_id": "a5e86192", "created": _iso(start), "attempts": ended, "status": ended[-1]["status"]}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def add_predictions(
    run: Path, names: list[str], each: int, pictures: int = 64, side: int = 28, step: int = 702, seed: int = 0
) -> Path:
    """Give a run what its last evaluation leaves: neighbouring classes are confused, and some that are far apart."""
    noise, total = random.Random(seed), len(names)
    right, predicted, confused = [0] * total, [0] * total, Counter()
    for label in range(total):
        hard = 0.05 + 0.5 * noise.random() ** 3
        for _ in range(each):
            best = label
            if noise.random() < hard:
                best = (
                    label + (noise.choice((1, 1, 1, -1, 2)) if noise.random() < 0.75 else noise.randrange(total))
                ) % total
            predicted[best] += 1
            right[label] += best == label
            confused[label, best] += best != label
    pairs = [[*pair, times] for pair, times in confused.most_common() if times]
    (run / "pictures").mkdir()
    worst = []
    for number in range(1, pictures + 1):
        label = noise.randrange(total)
        best, other, score = (label + 1) % total, (label + 2) % total, 0.999 - 0.006 * number
        name = f"pictures/worst_{number:02d}.{'png' if side < 96 else 'jpg'}"
        _picture(label, side, noise).save(run / name)
        guesses = [[best, score], [label, (1 - score) * 0.7], [other, (1 - score) * 0.2]][: total - 1]
        one = {"index": 17 * number, "place": f"data/val.beton: sample {17 * number}", "loss": 7.1 - 0.06 * number}
        worst.append({**one, "labels": [label], "guesses": guesses, "picture": name})
    classes = {"name": names, "images": [each] * total, "predicted": predicted, "right": right}
    content = {"step": step, "weights": "raw", "images": each * total, "multi_label": False, "classes": classes}
    (run / "val_predictions.json").write_text(json.dumps({**content, "pairs": pairs, "worst": worst}))
    return run


def _picture(label: int, side: int, noise: random.Random) -> Image.Image:
    """A disc on a ground, both coloured by the label."""
    ground, disc = (f"hsl({(label * 47 + shift) % 360}, 45%, {light}%)" for shift, light in ((0, 30), (140, 65)))
    image, at, size = Image.new("RGB", (side, side), ground), noise.random(), noise.uniform(0.3, 0.6)
    place = [side * at * (1 - size), side * (1 - at) * (1 - size)]
    ImageDraw.Draw(image).ellipse([*place, *(start + side * size for start in place)], fill=disc)
    return image


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
