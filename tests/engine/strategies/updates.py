"""Started by test_updates.py on two ranks: every strategy's updates of a small model, beside the same in plain torch."""

import copy
import json
import sys
from datetime import timedelta
from functools import partial

import torch
from torch import nn

from distcls.engine.strategies.accelerator import make_accelerator
from distcls.engine.strategies.blocks import checkpoint_activations
from distcls.engine.strategies.choose import make_strategy
from distcls.optim.ema import Ema
from tests.engine.strategies.small_model import SmallModel

RATE, BATCH, PARTS = 0.5, 16, 2  # of SGD; images of all ranks and parts; micro-batches of a rank


class Block(nn.Module):
    """Parameters whose sizes divide by nothing, so that every way to cut them has a remainder."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 7)
        self.norm = nn.LayerNorm(7)

    def forward(self, x):
        return x + self.norm(self.linear(x)).tanh()


def loss(model, images, target):
    return nn.functional.cross_entropy(model(images), target)


def in_plain_torch(model, images, target, clip, steps):
    """The reference: one process, the whole batch at once, in float64."""
    model = copy.deepcopy(model).double()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9)
    ema, norms = Ema(dict(model.named_parameters()), decay=0.5), []
    for step in range(1, steps + 1):
        loss(model, images.double(), target).backward()
        norms.append(float(nn.utils.clip_grad_norm_(trained, clip or float("inf"))))
        optimizer.step()
        optimizer.zero_grad()
        ema.update(step)
    return dict(model.named_parameters()), ema.state(), norms


def by(name, accelerator, model, images, target, clip, steps, checkpointing):
    model = copy.deepcopy(model)
    blocks = list(model.backbone[1:])
    if checkpointing:
        checkpoint_activations(blocks)
    strategy = make_strategy(
        name,
        accelerator,
        model,
        lambda: torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=RATE, momentum=0.9),
        blocks=blocks,
        micro_batch=BATCH // (PARTS * accelerator.num_processes),
        accumulation_steps=PARTS,
        clip_grad_norm=clip,
        # As of a model whose parameters are large: small ones are kept whole.
        deepspeed_overrides={"zero_optimization": {"stage3_param_persistence_threshold": 0}},
    )
    ema, norms = Ema(strategy.local_weights(), decay=0.5, changed=strategy.weights_changed), []
    rank, ranks = accelerator.process_index, accelerator.num_processes
    for step in range(1, steps + 1):
        for part in range(PARTS):
            own = slice(part * ranks + rank, None, PARTS * ranks)
            with strategy.micro_batch(last=part == PARTS - 1):
                with strategy.autocast():
                    value = nn.functional.cross_entropy(strategy.model(images[own]), target[own])
                strategy.backward(value / PARTS)
        norms.append(float(strategy.update(measure=True)))
        ema.update(step)
    with torch.no_grad():
        before = strategy.model(images)
        weights = {key: tensor.detach().clone() for key, tensor in strategy.gathered()}
        with ema.applied():
            average = {key: tensor.detach().clone() for key, tensor in strategy.gathered()}
            during = strategy.model(images)
        after = strategy.model(images)
    return weights, average, norms, before, during, after


def difference(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[key].double() - theirs[key].detach()).abs().max()) for key in ours)


def main(names):
    torch.manual_seed(1)
    accelerator = make_accelerator(precision="fp32", sharded=True, timeout=timedelta(minutes=2))
    device = accelerator.device
    model = SmallModel(Block).to(device)
    images, target = torch.randn(BATCH, 5).to(device), torch.randint(3, (BATCH,)).to(device)
    report = {}
    for name in names:
        for clip, checkpointing in ((None, False), (0.05, False), (1e6, True)):
            run = partial(by, name, accelerator, model, images, target, clip, 3, checkpointing)
            weights, average, norms, before, during, after = run()
            expected, expected_average, expected_norms = in_plain_torch(model, images, target, clip, 3)
            averaged = copy.deepcopy(model)
            averaged.load_state_dict(average)
            report[f"{name} {clip}"] = {
                "weights": difference(weights, expected),
                "average": difference(average, expected_average),
                "norm": max(abs(a - b) for a, b in zip(norms, expected_norms, strict=True)),
                "averaged model": float((averaged(images) - during).abs().max()),
                "model after it": float((before - after).abs().max()),
                "norms": norms,
            }
    if accelerator.process_index == 0:
        print("REPORT", json.dumps(report))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
