import math

import pytest
import torch
from torch import nn

from distcls.errors import UserError
from distcls.optim.optimizers import SGD, AdamW
from distcls.optim.param_groups import param_groups
from distcls.optim.schedules import CosineWarmup, LinearWarmup, StepWarmup


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_decay_by_kind_of_parameter():
    groups = param_groups(
        net(), lr=1.0, weight_decay=0.1, paramwise_cfg={"norm_decay_mult": 0.0, "bias_decay_mult": 0.5}
    )
    names = {group["weight_decay"]: group["names"] for group in groups}
    assert names == {
        0.1: ["0.weight", "3.weight"],
        0.05: ["0.bias", "3.bias"],
        0.0: ["1.weight", "1.bias", "2.weight", "2.bias"],
    }


def test_frozen_parameters_are_left_out():
    model = net()
    model[0].requires_grad_(False)
    (group,) = param_groups(model, lr=1.0, weight_decay=0.1)
    assert "0.weight" not in group["names"]
    assert len(group["params"]) == 6


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda m: SGD(m, lr=0.1, weight_decay=0.01, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, 0.9, 0, 0.01, True),
        ),
        (lambda m: AdamW(m, lr=0.1, weight_decay=0.2), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2)),
    ],
)
def test_an_update_is_torchs_own(ours, theirs):
    torch.manual_seed(0)
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    two.load_state_dict(one.state_dict())
    images = torch.randn(5, 3)
    for model, optimizer in ((one, ours(one)), (two, theirs(two.parameters()))):
        for _ in range(3):
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()
    assert torch.equal(one.weight, two.weight)


def test_cosine_goes_from_warmup_to_end():
    schedule = CosineWarmup(warmup_epochs=2, end_factor=0.1, total_steps=100, steps_per_epoch=10)
    assert schedule(0) == pytest.approx(0.01)
    assert schedule(10) == pytest.approx(0.505)
    assert schedule(20) == 1.0
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(99) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 79 / 80)))


def test_linear_and_step():
    linear = LinearWarmup(warmup_steps=10, warmup_start_factor=0.0, total_steps=110, steps_per_epoch=10)
    assert [linear(step) for step in (0, 5, 10, 60)] == [0.0, 0.5, 1.0, 0.5]
    stepped = StepWarmup(milestones=[3, 6], gamma=0.1, total_steps=90, steps_per_epoch=10)
    assert [stepped(step) for step in (0, 29, 30, 60)] == pytest.approx([1, 1, 0.1, 0.01])


def test_two_lengths_of_warmup_are_refused():
    with pytest.raises(UserError, match="warmup_epochs and warmup_steps are both set"):
        CosineWarmup(warmup_epochs=1, warmup_steps=5, total_steps=100, steps_per_epoch=10)


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="the warm-up lasts 200 steps and the whole run 100"):
        CosineWarmup(warmup_epochs=20, total_steps=100, steps_per_epoch=10)
