import numpy as np
import pytest

from distcls.data.errors import DataError
from distcls.data.order import GlobalOrder, permutation


def test_every_epoch_holds_every_sample_once_in_another_order():
    orders = [permutation(1000, seed, epoch) for seed, epoch in ((0, 0), (1, 0), (0, 1), (7, 7))]
    for order in orders:
        assert sorted(order) == list(range(1000))
    for one in range(4):
        for other in range(one):
            assert (orders[one] != orders[other]).mean() > 0.9


def test_the_order_is_what_it_was():
    """A new numpy that shuffles otherwise would change every run that is resumed: then ORDER_VERSION has to change."""
    assert permutation(10, 1, 2).tolist() == [1, 4, 5, 0, 7, 6, 8, 2, 3, 9]


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_of_a_step_make_the_global_batch(parts):
    order = GlobalOrder(100, 24, seed=3)
    assert order.steps_per_epoch == 4
    for step in (0, 3, 4, 11):
        whole = order.part(step, 0, 1)
        pieces = [order.part(step, part, parts) for part in range(parts)]
        assert np.array_equal(np.concatenate([piece.indices for piece in pieces]), whole.indices)
        assert np.array_equal(np.concatenate([piece.positions for piece in pieces]), whole.positions)
        assert whole.epoch == step // 4
        assert whole.positions[0] == step % 4 * 24


def test_a_step_does_not_depend_on_the_steps_before():
    whole = GlobalOrder(100, 24, seed=3)
    for step in range(9):
        expected = whole.part(step, 0, 1).indices
        assert np.array_equal(GlobalOrder(100, 24, seed=3).part(step, 0, 1).indices, expected)


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(DataError) as caught:
        GlobalOrder(100, 128, seed=0)
    assert str(caught.value) == (
        "the training set holds 100 images, fewer than one global batch of 128: "
        "set train.global_batch_size to 100 or less"
    )
