import copy

import pytest
import torch
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distcls.engine.strategies.buffers import running_statistics
from distcls.optim.ema import Ema


def test_the_average_follows_and_the_weights_come_back():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    expected = model.weight.detach().clone().double()
    ema = Ema(dict(model.named_parameters()), decay=0.9)
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        ema.update(step)
        expected = 0.9 * expected + 0.1 * model.weight.detach().double()
    own = model.weight.detach().clone()
    with ema.applied():
        assert torch.allclose(model.weight.double(), expected, atol=1e-6)
    assert torch.equal(model.weight, own)


def test_state_goes_through_a_checkpoint():
    one, two = (Ema(dict(nn.Linear(3, 2).named_parameters()), decay=0.9) for _ in range(2))
    two.load({name: tensor.clone() for name, tensor in one.state().items()})
    assert all(torch.equal(a, b) for a, b in zip(one.state().values(), two.state().values(), strict=True))


def test_every_so_many_updates_and_not_before_its_start():
    weight = torch.zeros(1)
    ema = Ema({"weight": weight}, decay=0.75, every_steps=4, start_step=8)
    averages = []
    for step in range(1, 21):
        weight += 1
        ema.update(step)
        averages.append(ema.state()["weight"].item())
    assert averages[:12] == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 9]  # 9 = 0.75 * 8 + 0.25 * 12
    assert averages[12:] == [9, 9, 9, 0.75 * 9 + 0.25 * 16] + [10.75] * 3 + [0.75 * 10.75 + 0.25 * 20]


def batch_norm_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))


def trained(follow):
    """The state of the average after some updates that `follow(model)` starts to keep, and of the model."""
    model = batch_norm_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    update, average = follow(model)
    for step in range(1, 13):
        model(torch.randn(6, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        update(step)
    return average(), model.state_dict()


def ours(model):
    ema = Ema(dict(model.named_parameters()), decay=0.9, buffers=running_statistics(model))
    return ema.update, lambda: {**ema.state(), **ema.buffers()}


def in_place(model):
    ema = Ema(dict(model.named_parameters()), decay=0.9, buffers=running_statistics(model))

    def average():
        with ema.applied():
            return copy.deepcopy(model.state_dict())

    return ema.update, average


def torchvisions(model):
    """The class of torchvision's references, ExponentialMovingAverage, by its formula."""
    theirs = AveragedModel(model, avg_fn=lambda average, own, _: 0.9 * average + 0.1 * own, use_buffers=True)
    theirs.update_parameters(model)  # the first time copies
    return lambda step: theirs.update_parameters(model), theirs.module.state_dict


def torchs(model):
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)
    return lambda step: theirs.update_parameters(model), theirs.module.state_dict


def timms(model, kind):
    theirs = kind(model, decay=0.9)
    return lambda step: theirs.update(model), theirs.module.state_dict


@pytest.mark.parametrize("follow", [ours, in_place])
def test_weights_and_statistics_are_averaged_as_by_torch_and_timm(follow):
    average, end = trained(follow)
    for exact in (torchs, lambda model: timms(model, ModelEmaV3)):
        theirs, _ = trained(exact)
        assert [name for name in theirs if "num" not in name and not average[name].equal(theirs[name])] == []
    for formula in (torchvisions, lambda model: timms(model, ModelEmaV2)):  # products where the others take a lerp
        theirs, _ = trained(formula)
        for name in theirs.keys() - {"1.num_batches_tracked"}:
            torch.testing.assert_close(average[name], theirs[name], rtol=1e-5, atol=1e-7)
    assert not average["1.running_mean"].equal(end["1.running_mean"])


def test_statistics_that_are_not_averaged_are_the_models_own():
    model = batch_norm_model()
    ema = Ema(dict(model.named_parameters()), decay=0.9)
    model(torch.randn(6, 3, 8, 8))
    own = model[1].running_mean.clone()
    with ema.applied():
        assert model[1].running_mean.equal(own)


def test_statistics_go_through_a_checkpoint_and_what_is_followed_comes_back():
    model = batch_norm_model()
    one, two = (Ema(dict(model.named_parameters()), decay=0.5, buffers=running_statistics(model)) for _ in range(2))
    model(torch.randn(6, 3, 8, 8))
    own = copy.deepcopy(model.state_dict())
    one.update(1)
    two.load(one.state(), one.buffers())
    assert sorted(two.buffers()) == ["1.running_mean", "1.running_var"]
    assert all(one.buffers()[name].equal(average) for name, average in two.buffers().items())
    with two.applied():
        assert not model.state_dict()["1.running_mean"].equal(own["1.running_mean"])
    assert all(tensor.equal(own[name]) for name, tensor in model.state_dict().items())
