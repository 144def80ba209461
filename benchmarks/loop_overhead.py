"""Overhead of the trainer's loop over a bare PyTorch loop with the same model and batches, on a CPU.

    python benchmarks/loop_overhead.py [--rounds 20] [--steps 25] [--batch 128]

Both alternate in one process. A round is `steps` steps of the trainer (engine/trainer.py as a run calls it: learning
rates, seeds, metrics, agreement between ranks, heartbeat, a row at the end of the round) and as many of the bare loop
(next batch, forward, backward, step, zero_grad), with the Fashion-MNIST recipe's model (ResNet_CIFAR, 28 x 28 pixels)
and batches of the same loader. The order alternates between rounds. The result is the median over rounds of
trainer / bare - 1, for wall time and for the process's CPU time, which other processes do not affect. Checkpoints and
evaluations are excluded. A small --batch shows the loop's own milliseconds, which do not depend on it. Writes one entry
per batch size to benchmarks/results/loop_overhead.json.
"""

import argparse
import contextlib
import copy
import json
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from made_up import MadeUp

from distcls.data.converting.convert import convert
from distcls.engine.attempt import session
from distcls.engine.run import train as run_recipe
from distcls.engine.stopping.preemption import StopRequest
from distcls.engine.trainer import train

RECIPE = """\
model:
  backbone: {{type: ResNet_CIFAR, depth: 18, stem_channels: 16, base_channels: 16, out_indices: [3]}}
  neck: {{type: GlobalAveragePooling}}
  head: {{type: LinearClsHead, num_classes: 10, loss: {{type: CrossEntropyLoss}}, topk: [1, 5]}}
data:
  train: {{path: {beton}}}
  val: {{path: {beton}, crop_ratio: 1.0}}
  resolution: 28
  augment: [{{type: RandomResizedCrop}}, {{type: RandomHorizontalFlip}}]
  workers: 1
optimizer: {{type: SGD, lr: 0.01, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4}}
schedule: {{type: CosineWarmup, warmup_steps: 5}}
train: {{max_steps: 100000, global_batch_size: {batch}, channels_last: true}}
checkpoint: {{every_steps: 1000000}}
eval: {{every_epochs: 1.0e+6}}
output_dir: {run}
tracking: {{mode: disabled}}
"""


class Measured(Exception):
    """Raised to leave the session once everything is measured."""


def measure(job, snapshots, progress, window, options: argparse.Namespace) -> list[dict[str, float]]:
    """Milliseconds per step of both loops in each round, on the job that a session has built."""
    # The bare loop's own model and optimizer, from the same weights.
    bare_model = copy.deepcopy(job.classifier)
    bare_optimizer = torch.optim.SGD(bare_model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    bare_model.train()
    steps = options.steps

    def ours() -> None:
        job.total_steps = progress.step + steps
        train(job, snapshots, progress, window)

    def bare() -> None:
        with job.train_loader.stream(0, steps) as batches:
            for batch in batches:
                loss = bare_model(batch.images, batch.target)["loss"]
                loss.backward()
                bare_optimizer.step()
                bare_optimizer.zero_grad()

    def timed(loop) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        loop()
        return (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps

    for loop in (ours, bare):
        timed(loop)
    first = next(job.classifier.parameters())
    assert not torch.equal(first, next(bare_model.parameters())), "the two train one model"
    rounds = []
    for number in range(options.rounds):
        order = (ours, bare) if number % 2 else (bare, ours)
        taken = {loop.__name__: timed(loop) for loop in order}
        one = {
            f"{name}_{kind}_ms": 1000 * value
            for name, pair in taken.items()
            for kind, value in zip(("wall", "cpu"), pair, strict=True)
        }
        rounds.append(one)
        print(f"{number:3} ours {one['ours_wall_ms']:.1f} bare {one['bare_wall_ms']:.1f} ms a step", flush=True)
    return rounds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--steps", type=int, default=25)
    arguments.add_argument("--batch", type=int, default=128)
    options = arguments.parse_args()

    rounds: list[dict[str, float]] = []

    def measured(job, snapshots, progress, window):
        job.evaluation_due = lambda step: False
        job.checkpoint_due = lambda step: False
        rounds.extend(measure(job, snapshots, progress, window, options))
        raise Measured

    session.train = measured
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(MadeUp(4096, 28, 28, small=False), folder / "data.beton", write_mode="raw")
        (folder / "recipe.yaml").write_text(
            RECIPE.format(beton=folder / "data.beton", batch=options.batch, run=folder / "run")
        )
        with contextlib.suppress(Measured):
            run_recipe(folder / "recipe.yaml", stop=StopRequest())
    ratios = {kind: [one[f"ours_{kind}_ms"] / one[f"bare_{kind}_ms"] - 1 for one in rounds] for kind in ("wall", "cpu")}
    figures = {}
    for kind, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        figures[kind] = {"median": middle, "quartiles": [low, high]}
    extra = {
        kind: statistics.median(one[f"ours_{kind}_ms"] - one[f"bare_{kind}_ms"] for one in rounds)
        for kind in ("wall", "cpu")
    }
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
    }
    result = {
        "machine": machine,
        "options": vars(options),
        "overhead": figures,
        "median_extra_ms": extra,
        "rounds": rounds,
    }
    out = Path(__file__).parent / "results" / "loop_overhead.json"
    runs = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps({**runs, f"batch {options.batch}": result}, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("overhead", "median_extra_ms", "machine")}, indent=1))


if __name__ == "__main__":
    main()
