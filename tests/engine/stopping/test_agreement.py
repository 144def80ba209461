import torch

from distcls.engine.stopping.agreement import LAG, Agreement
from distcls.engine.totals import Totals

CPU = torch.device("cpu")


def test_a_stop_is_known_a_fixed_number_of_steps_later():
    agreement = Agreement(CPU, world_size=1)
    known = []
    for step in range(1, 10):
        agreement.post(step, stop=step >= 2, number=torch.tensor(1.0))
        agreement.update()
        known.append(agreement.stop)
    assert known.index(True) + 1 == 2 + LAG


def test_a_loss_that_is_not_finite_is_known_with_its_step():
    agreement = Agreement(CPU, world_size=1)
    for step, loss in enumerate([1.0, float("nan"), float("inf")], start=1):
        agreement.post(step, stop=False, number=torch.tensor(loss))
        agreement.update()
    assert agreement.broken_at is None
    agreement.update(wait=True)
    assert agreement.broken_at == 2
    assert not agreement.stop


def test_totals_weigh_losses_by_batch_and_add_counts():
    totals = Totals(CPU, world_size=1)
    totals.add({"loss": torch.tensor(1.0), "top1": torch.tensor(3)}, count=4)
    totals.add({"loss": torch.tensor(4.0), "top1": torch.tensor(1)}, count=2)
    assert totals.reduce().read() == {"loss": 2.0, "top1": 4 / 6, "n": 6}
    assert totals.sums.tolist() == [0, 0, 0]


def test_an_open_window_goes_through_a_checkpoint():
    one, two = Totals(CPU, 1), Totals(CPU, 1)
    one.add({"loss": torch.tensor(0.1)}, count=3)
    two.load(*one.state())
    for totals in (one, two):
        totals.add({"loss": torch.tensor(0.7)}, count=3)
    assert one.reduce().read() == two.reduce().read()
