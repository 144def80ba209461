"""The order for data larger than memory: what it promises, and how well it shuffles."""

import numpy as np
import pytest

from distcls.data.sampling.block_order import BlockOrder, shuffled
from distcls.data.sampling.order import GlobalOrder

SHAPES = [(1000, 24, 16, 4), (1000, 10, 7, 3), (100, 100, 16, 4), (999, 8, 32, 1), (50, 7, 64, 4)]


def epoch_of(order, epoch=0):
    """(steps, B) samples."""
    steps, lanes = order.steps_per_epoch, np.arange(order.global_batch_size)
    return np.stack([order.at(epoch * steps + step, lanes) for step in range(steps)])


@pytest.mark.parametrize("size", [1, 2, 3, 16, 1000, 1001])
def test_a_shuffle_is_a_permutation_of_its_own(size):
    orders = {tuple(shuffled(np.arange(size), size, np.array([key], np.uint64))) for key in range(20)}
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert len(orders) == (20 if size >= 16 else len(orders))


def test_shuffles_of_five_are_equally_likely():
    """All 120 orders in 24,000 draws: chi-square of 119 degrees of freedom, mean 119, deviation 15."""
    keys = np.repeat(np.arange(24_000, dtype=np.uint64) << np.uint64(7), 5)
    orders = shuffled(np.tile(np.arange(5), 24_000), 5, keys).reshape(-1, 5)
    _, counts = np.unique(orders @ 10 ** np.arange(5), return_counts=True)
    assert len(counts) == 120
    assert ((counts - 200) ** 2 / 200).sum() < 119 + 5 * 15


@pytest.mark.parametrize(("samples", "batch", "size", "window"), SHAPES)
def test_an_epoch_is_disjoint_and_complete_and_the_next_is_another(samples, batch, size, window):
    order = BlockOrder(samples, batch, 3, block_size=size, window=window)
    epochs = [epoch_of(order, epoch) for epoch in range(3)]
    for one in epochs:
        assert one.shape == (samples // batch, batch)
        assert len(np.unique(one)) == one.size
        assert (one.min() >= 0) & (one.max() < samples)
    assert (epochs[0] != epochs[1]).mean() > 0.8
    assert (epochs[0] != epoch_of(BlockOrder(samples, batch, 4, block_size=size, window=window))).mean() > 0.8


def test_what_an_epoch_leaves_out_is_not_always_the_same():
    order = BlockOrder(1000, 24, 3, block_size=16, window=4)
    left_out = [set(range(1000)) - set(epoch_of(order, epoch).ravel()) for epoch in range(4)]
    assert all(len(left) == 1000 % 24 for left in left_out)
    assert len(set.union(*left_out)) > 40


@pytest.mark.parametrize("parts", [2, 3, 6, 24])
def test_parts_of_a_step_make_the_global_batch(parts):
    whole = GlobalOrder(1000, 24, 3, blocks=BlockOrder(1000, 24, 3, block_size=16, window=4))
    for step in (0, 40, 41, 100):
        pieces = [whole.part(step, part, parts) for part in range(parts)]
        expected = whole.part(step, 0, 1)
        assert np.array_equal(np.concatenate([piece.indices for piece in pieces]), expected.indices)
        assert np.array_equal(np.concatenate([piece.positions for piece in pieces]), expected.positions)


def test_the_order_is_what_it_was():
    """A change of it would change every run that is resumed: then ORDER_VERSION has to change."""
    assert BlockOrder(100, 6, 1, block_size=4, window=2).at(21, np.arange(6)).tolist() == WAS


WAS = [10, 32, 97, 51, 38, 93]


def test_a_lane_reads_whole_blocks_and_keeps_few_at_a_time():
    """Of its 400 samples a lane has one window of 64 in work, and blocks come in one piece but for a lane's ends."""
    order = BlockOrder(800, 2, 3, block_size=16, window=4)
    for lane in np.arange(2)[:, None]:
        seen = [set(order.in_work(step, lane).tolist()) for step in range(order.steps_per_epoch)]
        taken = [int(order.at(step, lane)[0]) for step in range(order.steps_per_epoch)]
        assert all(sample in window for sample, window in zip(taken, seen, strict=True))
        assert max(map(len, seen)) == 64
        windows = {frozenset(window) for window in seen}
        assert sum(map(len, windows)) == order.steps_per_epoch
        assert len(windows) == sum(len(order.begins(step, lane)) for step in range(order.steps_per_epoch))
        assert len(windows) == sum(len(order.ends(step, lane)) for step in range(order.steps_per_epoch))
        # Neighbours in the file: 64 samples of 4 blocks have 60.
        assert sum(sample + 1 in window for window in windows for sample in window) > 0.9 * len(taken)


def test_lanes_begin_their_windows_at_different_steps():
    order = BlockOrder(100_000, 64, 3, block_size=16, window=4)
    begun = [len(order.begins(step, np.arange(64))) for step in range(200, 1000)]
    assert np.mean(begun) == pytest.approx(1, abs=0.2)
    assert max(begun) <= 8


def test_sorted_classes_are_mixed():
    """100 classes one after the other, the worst case: each batch has as many of a class as chance would have it."""
    order = BlockOrder(50_000, 100, 3, block_size=16, window=4)
    counts = np.stack([np.bincount(batch // 500, minlength=100) for batch in epoch_of(order)])
    assert counts.mean() == pytest.approx(1)
    assert counts.var() == pytest.approx(1, abs=0.1)
    neighbours = np.corrcoef(counts[:-64].ravel(), counts[64:].ravel())[0, 1]
    assert abs(neighbours) < 0.1
