import torch
from torch import nn

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
