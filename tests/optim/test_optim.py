import math

import pytest
import torch
from torch import nn

from distcls.errors import UserError
from distcls.optim.lamb import Lamb
from distcls.optim.optimizers import SGD, AdamW, RMSprop
from distcls.optim.param_groups import param_groups
from distcls.optim.schedules import CosineWarmup, ExponentialWarmup, LinearWarmup, StepWarmup
from distcls.registry import OPTIMIZERS


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
        (
            lambda m: RMSprop(m, lr=0.1, alpha=0.9, eps=0.03, momentum=0.9, weight_decay=0.2),
            lambda p: torch.optim.RMSprop(p, 0.1, 0.9, 0.03, 0.2, 0.9),
        ),
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


@pytest.mark.parametrize("largest", [1.0, None])
def test_lamb_is_timms(largest):
    theirs_of = pytest.importorskip("timm.optim").Lamb
    torch.manual_seed(0)
    one, two = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    two.load_state_dict(one.state_dict())
    rules = {"bias_decay_mult": 0.0}
    ours = Lamb(one, lr=0.1, weight_decay=0.02, max_grad_norm=largest, paramwise_cfg=rules)
    groups = [{"params": [two.weight], "weight_decay": 0.02}, {"params": [two.bias], "weight_decay": 0.0}]
    theirs = theirs_of(groups, lr=0.1, max_grad_norm=largest)
    images = torch.randn(5, 3).double()
    for _ in range(20):
        for model, optimizer in ((one, ours), (two, theirs)):
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(one.weight, two.weight)
    torch.testing.assert_close(one.bias, two.bias)


def test_lamb_moves_a_parameter_of_zeros():
    layer = nn.Linear(2, 1)
    nn.init.zeros_(layer.weight)
    optimizer = Lamb(layer, lr=0.1, weight_decay=0.02)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight, torch.full((1, 2), -0.1), atol=1e-5, rtol=0)


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


def test_by_epoch_holds_the_rate_within_an_epoch():
    by_step = CosineWarmup(warmup_epochs=2, total_steps=100, steps_per_epoch=10)
    by_epoch = CosineWarmup(warmup_epochs=2, by_epoch=True, total_steps=100, steps_per_epoch=10)
    assert [by_epoch(step) for step in range(100)] == [by_step(step // 10 * 10) for step in range(100)]


def test_a_cosine_under_the_warmup_has_begun_when_it_ends():
    schedule = CosineWarmup(warmup_epochs=2, under_warmup=True, total_steps=100, steps_per_epoch=10)
    assert schedule(20) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.2)))


def test_exponential():
    schedule = ExponentialWarmup(gamma=0.9, every_epochs=2, total_steps=100, steps_per_epoch=10)
    assert [schedule(step) for step in (0, 19, 20, 60)] == pytest.approx([1, 1, 0.9, 0.9**3])


@pytest.mark.parametrize("warmup_steps", [5, 0])
def test_two_lengths_of_warmup_are_refused(warmup_steps):
    """0 steps behind a base's epochs too: they would be taken, not the 0."""
    with pytest.raises(UserError, match="warmup_epochs and warmup_steps are both set"):
        CosineWarmup(warmup_epochs=1, warmup_steps=warmup_steps, total_steps=100, steps_per_epoch=10)


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="the warm-up lasts 200 steps and the whole run 100"):
        CosineWarmup(warmup_epochs=20, total_steps=100, steps_per_epoch=10)


def test_lamb_goes_on_from_its_state():
    def steps(model, optimizer, number):
        for _ in range(number):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    straight, halted = nn.Linear(3, 2), nn.Linear(3, 2)
    halted.load_state_dict(straight.state_dict())
    steps(straight, Lamb(straight, lr=0.1), 6)
    first, second = Lamb(halted, lr=0.1), Lamb(halted, lr=0.1)
    steps(halted, first, 3)
    second.load_state_dict(first.state_dict())
    steps(halted, second, 3)
    assert torch.equal(halted.weight, straight.weight)


def test_what_torch_refuses_is_a_message():
    with pytest.raises(UserError) as caught:
        OPTIMIZERS.build({"type": "SGD", "lr": 0.1, "momentum": 0.0, "nesterov": True}, model=nn.Linear(2, 2))
    assert str(caught.value) == (
        "SGD: cannot be built like this: Nesterov momentum requires a momentum and zero dampening"
    )
