import numpy as np
import pytest
import torch

from distcls.data.augmenting.augment import RandomResizedCrop
from distcls.data.augmenting.color_jitter import ColorJitter
from distcls.data.augmenting.mix import CutMix
from distcls.data.augmenting.random_erasing import RandomErasing
from distcls.data.augmenting.resolution import Resolution
from distcls.errors import UserError
from tests.data.conftest import train_loader
from tests.data.decoding.test_packed import pack
from tests.data.test_loader import hashes


def ffcv_imagenet(epoch, start_ramp, end_ramp, min_res, max_res):
    """get_resolution of its train_imagenet.py."""
    if epoch <= start_ramp:
        return min_res
    if epoch >= end_ramp:
        return max_res
    interp = np.interp([epoch], [start_ramp, end_ramp], [min_res, max_res])
    return int(np.round(interp[0] / 32)) * 32


@pytest.mark.parametrize("ramp", [(11, 13), (65, 76), (0, 9), (4, 4)])
def test_the_schedule_is_ffcv_imagenets(ramp):
    schedule = Resolution(start=128, end=256, ramp=ramp)
    assert [schedule.at(epoch) for epoch in range(90)] == [ffcv_imagenet(epoch, *ramp, 128, 256) for epoch in range(90)]
    assert schedule.largest == 256


def test_a_ramp_stays_between_its_ends_and_may_fall():
    schedule = Resolution(start=100, end=28, ramp=(0, 4), multiple_of=32)
    assert [schedule.at(epoch) for epoch in range(6)] == [100, 96, 64, 32, 28, 28]


def test_a_ramp_that_ends_before_it_begins_is_refused():
    with pytest.raises(UserError) as caught:
        Resolution(start=1, end=2, ramp=(3, 2))
    assert str(caught.value) == "data.resolution.ramp: got [3, 2], expected its first epoch before its last"


GROWING = Resolution(start=16, end=32, ramp=(0, 2), multiple_of=8)
EVERYTHING = {
    "resolution": GROWING,
    "transforms": [RandomResizedCrop(), ColorJitter(0.3), RandomErasing()],
    "mixes": [CutMix()],
}


def test_batches_change_size_with_the_epoch_and_nothing_else(mixed):
    """An epoch has two steps. Each epoch's batches are those of a loader of that resolution."""
    with train_loader(mixed, **EVERYTHING).stream(0, 8) as stream:
        sizes = [batch.images.shape[-1] for batch in stream]
    assert sizes == [16, 16, 24, 24, 32, 32, 32, 32]
    whole = hashes(train_loader(mixed, **EVERYTHING), 0, 8)
    for epoch in range(4):
        alone = train_loader(mixed, **{**EVERYTHING, "resolution": GROWING.at(epoch)})
        assert hashes(alone, 2 * epoch, 2 * epoch + 2) == whole[2 * epoch : 2 * epoch + 2]


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_stream_from_any_step_equals_the_uninterrupted_one(mixed, first):
    assert (
        hashes(train_loader(mixed, **EVERYTHING), first, 8) == hashes(train_loader(mixed, **EVERYTHING), 0, 8)[first:]
    )


def test_packed_batches_change_size_too(mixed):
    growing, fixed = train_loader(mixed, resolution=GROWING), train_loader(mixed, resolution=24)
    pack(growing)
    pack(fixed)
    with growing.stream(2, 4) as one, fixed.stream(2, 4) as two:
        assert all(torch.equal(a.images, b.images) for a, b in zip(one, two, strict=True))
