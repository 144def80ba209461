import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distcls.data.augmenting.augment import RandomCrop, RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.windows import Windows, draw_windows
from distcls.data.errors import DataError
from distcls.errors import UserError


def windows_of(transform, number, height, width, resolution=32, seed=0):
    sizes = np.full(number, height), np.full(number, width)
    return draw_windows([transform], Windows.centred(*sizes, resolution), seed, 0, np.arange(number))


def test_uniform_numbers_are_uniform_and_independent():
    draws = Draws(seed=5, epoch=1, positions=np.arange(50_000), stream=0)
    one, other = draws.uniform(0), draws.uniform(1)
    assert one.min() >= 0
    assert one.max() < 1
    assert np.histogram(one, 20, (0, 1))[0] == pytest.approx(np.full(20, 2500), rel=0.1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.02


def test_numbers_depend_on_seed_epoch_position_and_stream_alone():
    def first(seed, epoch, stream):
        return Draws(seed, epoch, np.arange(100), stream).uniform(3)

    assert np.array_equal(first(1, 2, 3), first(1, 2, 3))
    different = [first(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    for one in range(4):
        for other in range(one):
            assert not np.isin(different[one], different[other]).any()
    part = Draws(1, 2, np.arange(40, 60), 3).uniform(3)
    assert np.array_equal(part, first(1, 2, 3)[40:60])


@pytest.mark.parametrize(("height", "width"), [(100, 150), (400, 90)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.35, 1.0)])
def test_random_resized_crop_has_torchvisions_distribution(height, width, scale):
    number = 4000
    mine = windows_of(RandomResizedCrop(scale=scale), number, height, width)
    theirs = v2.RandomResizedCrop(32, scale=scale)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    boxes = [theirs.make_params([image]) for _ in range(number)]
    for name, values in (("top", mine.top), ("left", mine.left), ("height", mine.rows), ("width", mine.cols)):
        expected = np.array([box[name] for box in boxes], float)
        tolerance = 5 * np.sqrt(2) * expected.std() / np.sqrt(number) + 1e-9
        assert abs(values.mean() - expected.mean()) <= tolerance, name
        assert values.std() == pytest.approx(expected.std(), rel=0.08, abs=1e-9), name
    assert (mine.top >= 0).all()
    assert (mine.top + mine.rows <= height).all()
    assert (mine.left + mine.cols <= width).all()


def test_an_image_too_long_for_any_ratio_gets_its_centre():
    windows = windows_of(RandomResizedCrop(scale=(1.0, 1.0)), 3, 10, 100)
    assert windows.rows.tolist() == [10] * 3
    assert windows.cols.tolist() == [13] * 3
    assert windows.left.tolist() == [43] * 3


def test_random_crop_reaches_every_place_equally():
    windows = windows_of(RandomCrop(padding=4), 9000, 32, 32)
    assert set(windows.rows) == set(windows.cols) == {32}
    for start in (windows.top, windows.left):
        places, counts = np.unique(start, return_counts=True)
        assert places.tolist() == list(range(-4, 5))
        assert counts == pytest.approx(np.full(9, 1000), rel=0.15)


def test_random_crop_of_a_small_image_says_what_would_do():
    with pytest.raises(DataError) as caught:
        windows_of(RandomCrop(padding=1), 2, 28, 30)
    assert str(caught.value) == (
        "RandomCrop: an image of 30x28 with padding 1 is smaller than data.resolution 32: set padding to 2 or more, "
        "lower the resolution, or use RandomResizedCrop"
    )


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_flip_has_its_probability(p):
    assert windows_of(RandomHorizontalFlip(p), 5000, 8, 8).flip.mean() == pytest.approx(p, abs=0.03 * (0 < p < 1))


def test_a_sample_that_comes_twice_is_augmented_twice():
    windows = windows_of(RandomResizedCrop(), 2, 64, 64)
    assert (windows.top[0], windows.left[0], windows.rows[0]) != (windows.top[1], windows.left[1], windows.rows[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RandomResizedCrop(scale=(0.5, 2)),
            "RandomResizedCrop.scale: got [0.5, 2], expected 0 < smallest <= largest <= 1",
        ),
        (
            lambda: RandomResizedCrop(ratio=(2, 1)),
            "RandomResizedCrop.ratio: got [2, 1], expected 0 < smallest <= largest",
        ),
        (lambda: RandomCrop(-1), "RandomCrop.padding: got -1, expected 0 or more pixels"),
        (lambda: RandomHorizontalFlip(2), "RandomHorizontalFlip.p: got 2, expected a probability between 0 and 1"),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
