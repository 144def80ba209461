"""Started by test_resumes.py on three ranks: a run of every strategy, saved half-way and gone on with by a model and an
optimizer that are built anew, from other first weights."""

import copy
import json
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from distcls.engine.checkpoints.snapshot import Progress, Snapshots
from distcls.engine.checkpoints.store import CheckpointStore
from distcls.engine.ranks import collectives
from distcls.engine.strategies.accelerator import make_accelerator
from distcls.engine.strategies.buffers import running_statistics
from distcls.engine.strategies.choose import make_strategy
from distcls.engine.totals import Totals
from distcls.optim.ema import Ema
from distcls.optim.optimizers import SGD, AdamW
from tests.engine.strategies.small_model import SmallModel

STRATEGIES = ["ddp", "zero1", "zero2", "zero3", "fsdp2"]
OPTIMIZERS = {
    "nesterov": lambda model: SGD(model, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, paramwise_cfg=NORMS),
    "dampened": lambda model: SGD(model, lr=0.1, momentum=0.8, dampening=0.3),
    "without momentum": lambda model: SGD(model, lr=0.1, momentum=0.0),
    "amsgrad": lambda model: AdamW(model, lr=0.01, amsgrad=True, weight_decay=0.1, paramwise_cfg=NORMS),
}
NORMS = {"norm_decay_mult": 0.0}  # two groups
BATCH, PARTS, HALF, CLIP = 48, 2, 3, 0.7  # images of all ranks and parts, micro-batches of a rank, updates to the save


class Block(nn.Module):
    """Sizes that divide by nothing, statistics that differ from rank to rank, and a draw for every micro-batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 7, bias=False)  # with one its gradient were rounding alone, which Adam makes large
        self.norm = nn.BatchNorm1d(7)

    def forward(self, x):
        return x + nn.functional.dropout(self.norm(self.linear(x)).tanh(), 0.2, self.training)


class Run:
    """What a session builds, of a model that takes milliseconds."""

    def __init__(self, strategy, optimizer, accelerator, model, folder) -> None:
        self.accelerator, self.classifier = accelerator, copy.deepcopy(model)
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.strategy = make_strategy(
            strategy,
            accelerator,
            self.classifier,
            lambda: OPTIMIZERS[optimizer](self.classifier),
            blocks=list(self.classifier.backbone[1:]),
            micro_batch=BATCH // (PARTS * self.world_size),
            accumulation_steps=PARTS,
            clip_grad_norm=CLIP,
            deepspeed_overrides={},
        )
        self.ema = Ema(
            self.strategy.local_weights(),
            decay=0.5,
            buffers=running_statistics(self.classifier),
            changed=self.strategy.weights_changed,
        )
        self.trackers = SimpleNamespace(sync=lambda: None, event=lambda *_, **__: None, warn=print)
        self.val_loader, self.tta = SimpleNamespace(protocol={}), None
        self.window = Totals(accelerator.device, self.world_size)
        store = CheckpointStore(folder, 2, self.rank, self.world_size, gather=collectives.gather)
        recipe = {"optimizer": {"type": optimizer}, "model": {"head": {}}}
        self.store, self.snapshots = store, Snapshots(self, store, folder / "weights", {"recipe": recipe})

    def position(self, step):
        return {"step": step, "epoch": step, "samples": step * BATCH}

    def updates(self, first, last):
        """Loss and norm of each."""
        found = []
        for step in range(first, last):
            for part in range(PARTS):
                torch.manual_seed(1000 * step + part * self.world_size + self.rank)
                images, target = torch.randn(BATCH // (PARTS * self.world_size), 5), torch.randint(3, (8,))
                with self.strategy.micro_batch(last=part == PARTS - 1):
                    loss = nn.functional.cross_entropy(self.strategy.model(images), target)
                    self.strategy.backward(loss / PARTS)
                self.window.add({"loss": loss}, BATCH)
            found += [float(loss), float(self.strategy.update(measure=True))]
            self.ema.update(step + 1)
        return found

    def everything(self):
        """All that a rank has: its part of weights, average and buffers."""
        return [
            *(tensor.clone() for tensor in self.strategy.local_weights().values()),
            *(tensor.clone() for tensor in self.ema.state().values()),
            *(tensor.clone() for tensor in self.ema.buffers().values()),
            *(tensor.clone() for tensor in self.classifier.buffers()),
            self.window.sums.clone(),
        ]

    def whole(self):
        return {name: tensor.detach().clone() for name, tensor in self.strategy.gathered()}


def largest(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def same(ours, theirs):
    return len(ours) == len(theirs) and all(one.equal(two) for one, two in zip(ours, theirs, strict=True))


def main(folder):
    torch.manual_seed(1)
    accelerator = make_accelerator(precision="fp32", sharded=True, timeout=timedelta(minutes=2))
    model, other = SmallModel(Block).to(accelerator.device), SmallModel(Block).to(accelerator.device)
    report, by_ddp = {}, {}
    for name in STRATEGIES:
        for optimizer in OPTIMIZERS:
            where = Path(folder) / f"{name} {optimizer}"
            run = Run(name, optimizer, accelerator, model, where)
            run.updates(0, HALF)
            run.snapshots.save(Progress(step=HALF), run.window, required=True)
            half, numbers = run.whole(), run.updates(HALF, 2 * HALF)
            by_ddp.setdefault(optimizer, (half, run.whole()))
            again = Run(name, optimizer, accelerator, other, where)
            progress = again.snapshots.restore(again.store.latest(), again.window)
            equal = again.updates(progress.step, 2 * HALF) == numbers and same(again.everything(), run.everything())
            # the same checkpoint under the next strategy, which starts as it ended, and goes on alike
            following = STRATEGIES[(STRATEGIES.index(name) + 1) % len(STRATEGIES)]
            moved = Run(following, optimizer, accelerator, other, where)
            moved.snapshots.restore(moved.store.latest(), moved.window)
            taken_over = largest(moved.whole(), half)
            moved.updates(HALF, 2 * HALF)
            report[f"{name} {optimizer}"] = {
                "equal on all ranks": all(collectives.gather(equal)),
                "against ddp": max(largest(half, by_ddp[optimizer][0]), largest(run.whole(), by_ddp[optimizer][1])),
                "taken over": taken_over,
                "went on": largest(moved.whole(), run.whole()),
                "numbers": numbers,
            }
    if accelerator.process_index == 0:
        print("REPORT", json.dumps(report))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
