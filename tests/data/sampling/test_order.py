import hashlib
import tracemalloc

import numpy as np
import pytest

from distcls.data.errors import DataError
from distcls.data.sampling.order import BalancedOrder, GlobalOrder, permutation


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


def repeated_epoch(samples, batch, repeats, parts=1, epoch=0):
    order = GlobalOrder(samples, batch, 5, repeats=repeats)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    slices = [order.part(step, part, parts) for step in steps for part in range(parts)]
    return np.concatenate([one.indices for one in slices]), np.concatenate([one.positions for one in slices])


@pytest.mark.parametrize(("samples", "batch", "repeats"), [(120, 24, 3), (100, 20, 3), (60, 12, 4), (64, 8, 2)])
def test_a_repeated_epoch_holds_a_share_of_the_samples_each_as_often(samples, batch, repeats):
    indices, positions = repeated_epoch(samples, batch, repeats)
    assert positions.tolist() == list(range(len(indices)))
    counts = np.bincount(indices, minlength=samples)
    assert (counts == repeats).sum() == len(indices) // repeats
    assert set(np.unique(indices)) == set(permutation(samples, 5, 0)[: -(-len(indices) // repeats)].tolist())
    for one in indices.reshape(-1, batch):
        assert len(np.unique(one)) <= batch // repeats + 2
        assert (one[0::2] != one[1::2]).all(), "mixing pairs neighbours"
    assert set(indices) != set(repeated_epoch(samples, batch, repeats, epoch=1)[0])


def test_repeats_are_dealt_like_any_batch():
    assert repeated_epoch(100, 20, 3)[0].tolist() == repeated_epoch(100, 20, 3, parts=4)[0].tolist()
    assert repeated_epoch(100, 20, 1)[0].tolist() == permutation(100, 5, 0).tolist()


UNEVEN = np.array([0] * 70 + [2] * 25 + [3] * 8)  # no sample of class 1


def test_balanced_epochs_hold_every_class_equally_often():
    order = BalancedOrder(UNEVEN, seed=5)
    seen = np.zeros(len(UNEVEN), int)
    for epoch in range(30):
        indices = order(epoch)
        assert len(indices) == len(UNEVEN)
        shares = np.bincount(UNEVEN[indices], minlength=4)
        assert shares[1] == 0
        assert set(shares[[0, 2, 3]]) <= {34, 35}
        seen += np.bincount(indices, minlength=len(UNEVEN))
    for label in (0, 2, 3):
        assert np.ptp(seen[label == UNEVEN]) <= 1


def test_a_balanced_epoch_follows_from_seed_and_epoch_alone():
    first = BalancedOrder(UNEVEN, seed=5)
    forwards = [first(epoch) for epoch in range(4)]
    assert np.array_equal(BalancedOrder(UNEVEN, seed=5)(3), forwards[3])
    assert not np.array_equal(BalancedOrder(UNEVEN, seed=6)(3), forwards[3])
    assert len({tuple(order) for order in forwards}) == 4
    labels = UNEVEN[forwards[0]]
    assert 10 < np.flatnonzero(labels == 3)[:10].mean() < 60  # shuffled, not class after class


def test_the_balanced_order_is_what_it_was():
    """As above: then ORDER_VERSION has to change."""
    assert BalancedOrder(np.array([0, 0, 0, 0, 1, 1]), seed=1)(2).tolist() == [5, 2, 5, 1, 4, 1]


def test_many_classes_of_many_sizes_are_balanced_too():
    """More than are looked up at a time, in more labels than are looked at a time; the first and the last one are rare."""
    sizes = np.random.default_rng(3).integers(1, 3000, 100)
    sizes[[0, 40, 99]] = 1, 60_000, 2
    labels = np.random.default_rng(4).permutation(np.repeat(np.arange(100), sizes))
    indices = BalancedOrder(labels, seed=5)(3)
    assert np.ptp(np.bincount(labels[indices])) <= 1
    assert hashlib.sha256(indices.astype("<u4").tobytes()).hexdigest() == (
        "e96666784e56c279562517dfeb6b827c360cde229dd56f16b47ad0de0cce99dd"
    ), "ORDER_VERSION has to change"


def test_a_balanced_epoch_takes_little_more_memory_than_its_order():
    """The order's 4 bytes a sample, and what is looked up at a time."""
    labels = (np.arange(1_000_000) % 1000).astype(np.int32)
    tracemalloc.start()
    try:
        order = BalancedOrder(labels, seed=5)
        kept = tracemalloc.get_traced_memory()[0]
        indices = order(0)
        assert tracemalloc.get_traced_memory()[1] < 5.5e6
    finally:
        tracemalloc.stop()
    assert kept < 1e5
    assert indices.nbytes == 4e6


def test_balanced_parts_make_the_global_batch():
    whole, cut = GlobalOrder(103, 20, 5, UNEVEN), GlobalOrder(103, 20, 5, UNEVEN)
    for step in (6, 0, 11):
        pieces = [cut.part(step, part, 4).indices for part in range(4)]
        assert np.array_equal(np.concatenate(pieces), whole.part(step, 0, 1).indices)
