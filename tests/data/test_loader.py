import gc
import hashlib
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from distcls.data.augmenting.augment import RandomCrop
from distcls.data.augmenting.resolution import Resolution
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader
from distcls.errors import UserError
from tests.data.conftest import Arrays, train_loader
from tests.engine.launching import HANGS_S


def eval_loader(dataset, **changes):
    arguments = {"resolution": 28, "crop_ratio": 1.0, "batch_size": 96, "workers": 2, "device": "cpu"}
    return EvalLoader(dataset, **(arguments | changes))


def hashes(loader, first, last):
    """One hash of pixels, targets and indices for each micro-batch."""
    with loader.stream(first, last) as stream:
        return [digest(batch) for batch in stream]


def digest(batch):
    images = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
    return hashlib.sha256(images.tobytes() + batch.target.numpy().tobytes() + batch.index.numpy().tobytes()).hexdigest()


def test_any_number_of_workers_gives_the_same_pixels(mixed):
    one, two, three = (hashes(train_loader(mixed, workers=workers), 0, 5) for workers in (1, 2, 3))
    assert len(set(one)) == 5
    assert one == two == three


def test_two_ranks_see_what_one_rank_accumulating_two_sees(mixed):
    accumulated = hashes(train_loader(mixed, accumulation_steps=2), 0, 4)
    ranks = [hashes(train_loader(mixed, rank=rank, world_size=2), 0, 4) for rank in (0, 1)]
    assert accumulated == [chunk for step in zip(*ranks, strict=True) for chunk in step]


def test_all_ranks_together_see_the_global_batch(mixed):
    def pixels(**shape):
        with train_loader(mixed, **shape).stream(1, 2) as stream:
            return torch.cat([batch.images for batch in stream])

    whole = pixels()
    assert torch.equal(whole, torch.cat([pixels(rank=rank, world_size=3) for rank in range(3)]))
    assert torch.equal(whole, pixels(accumulation_steps=4))


@pytest.mark.parametrize("first", [1, 2, 3, 5])
def test_a_stream_from_any_step_equals_the_uninterrupted_one(mixed, first):
    """An epoch has two steps here."""
    whole = hashes(train_loader(mixed, accumulation_steps=2), 0, 6)
    assert hashes(train_loader(mixed, accumulation_steps=2), first, 6) == whole[2 * first :]


def test_an_epoch_shows_every_sample_once_and_the_next_another_way(raw):
    loader = train_loader(raw, global_batch_size=100)
    assert loader.steps_per_epoch == 10
    with loader.stream(0, 20) as stream:
        indices = [batch.index for batch in stream]
    first, second = torch.cat(indices[:10]), torch.cat(indices[10:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert first.tolist() != second.tolist()


def test_batches_are_normalised_images_with_their_labels(raw, raw_images):
    loader = train_loader(raw, transforms=[], dtype=torch.float64)
    with loader.stream(0, 1) as stream:
        batch = next(stream)
    expected = raw_images[batch.index.numpy()] / 255
    expected = (expected - np.array(raw.mean)) / np.array(raw.std)
    assert batch.images.shape == (24, 3, 28, 28)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.dtype == torch.float64
    assert np.allclose(batch.images.permute(0, 2, 3, 1), expected, atol=1e-12)
    assert batch.target.tolist() == (batch.index % 10).tolist()
    assert batch.count == 24


def test_a_batch_is_the_consumers_own(raw):
    """Buffers are reused, batches are not."""
    with train_loader(raw).stream(0, 20) as stream:
        batches = [(batch, digest(batch)) for batch in stream]
    assert all(digest(batch) == before for batch, before in batches)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 96), (3, 96), (4, 250), (7, 33), (3, 1000)])
def test_evaluation_sees_every_image_once(raw, raw_images, world_size, batch_size):
    seen, lengths = [], set()
    for rank in range(world_size):
        batches = list(
            eval_loader(
                raw, rank=rank, world_size=world_size, batch_size=batch_size, mean=[0] * 3, std=[1] * 3
            ).batches()
        )
        lengths.add(len(batches))
        for batch in batches:
            assert len(batch.images) == len(batch.target) == len(batch.index) == batch_size
            assert (batch.index[: batch.count] >= 0).all()
            assert (batch.index[batch.count :] == -1).all()
            assert (batch.target[batch.count :] == -1).all()
            assert batch.target[: batch.count].tolist() == (batch.index[: batch.count] % 10).tolist()
            pixels = (batch.images[: batch.count] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            assert np.array_equal(pixels, raw_images[batch.index[: batch.count]])
            seen += batch.index[: batch.count].tolist()
    assert sorted(seen) == list(range(1000))
    assert len(lengths) == 1


def test_two_streams_live_at_once(raw, mixed):
    alone = hashes(train_loader(mixed), 0, 12)
    evaluation = [digest(batch) for batch in eval_loader(raw).batches()]
    together = []
    with train_loader(mixed).stream(0, 12) as stream:
        for batch in stream:
            together.append(digest(batch))
            assert [digest(batch) for batch in eval_loader(raw).batches()] == evaluation
    assert together == alone


def test_leaving_early_stops_the_work_and_the_loader_goes_on(raw):
    loader = train_loader(raw)
    expected = hashes(loader, 0, 3)
    with loader.stream(0, 1000) as stream:
        next(stream)
    assert hashes(loader, 0, 3) == expected
    for _ in loader.stream(0, 1000):
        break
    gc.collect()
    assert hashes(loader, 0, 3) == expected


def test_no_thread_outlives_its_loader(raw):
    before = set(threading.enumerate())
    closed, dropped = train_loader(raw), train_loader(raw)
    for loader in (closed, dropped):
        with pytest.raises(ZeroDivisionError), loader.stream(0, 1000) as stream:
            assert next(stream).count / 0
    mine = set(threading.enumerate()) - before
    assert len(mine) == 4
    stream = closed.stream(0, 1000)
    closed.close()
    stream.close()
    del loader, dropped, stream
    gc.collect()
    for thread in mine:
        thread.join(HANGS_S)
        assert not thread.is_alive()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_memory_stays_flat_over_many_short_epochs(raw):
    """A ring of buffers that stayed would be 3.5 MB an epoch."""
    loader, evaluation = train_loader(raw, global_batch_size=500), eval_loader(raw)

    def epochs(number):
        for epoch in range(number):
            with loader.stream(2 * epoch, 2 * epoch + 2) as stream:
                assert sum(batch.count for batch in stream) == 1000
            with evaluation.batches() as stream:
                next(stream)

    epochs(60)  # the allocator's own pools fill first
    before = resident_bytes()
    epochs(100)
    assert resident_bytes() - before < 100e6


@pytest.mark.slow
def test_a_thousand_epochs_leave_no_thread_and_no_memory(mixed):
    """JPEGs too; every tenth epoch is left early, every other tenth by an exception."""
    loader = train_loader(mixed, global_batch_size=20, resolution=16)

    def epoch(number):
        with loader.stream(3 * number, 3 * number + 3) as stream:
            for batch in stream:
                if number % 20 == 10:
                    break
                assert batch.count / (number % 20 != 0)

    def epochs(first, last):
        for number in range(first, last):
            if number % 20:
                epoch(number)
            else:
                with pytest.raises(ZeroDivisionError):
                    epoch(number)

    epochs(0, 200)
    before, threads = resident_bytes(), threading.active_count()
    epochs(200, 1200)
    assert threading.active_count() == threads
    assert resident_bytes() - before < 16e6


def damage(dataset, index):
    """A copy of the data set with sample `index` cut to a third of its bytes."""
    copy = BetonDataset(dataset.paths)
    copy.samples["size"][index] //= 3
    return copy


def test_a_damaged_jpeg_is_named(mixed, jpeg_beton):
    index = int(np.flatnonzero(mixed.samples["mode"] == 0)[5])
    loader = train_loader(damage(mixed, index))
    with pytest.raises(DataError) as caught:
        hashes(loader, 0, 4)
    assert str(caught.value) == (
        f"{jpeg_beton}: sample {index}: its JPEG data is damaged and cannot be decoded. "
        "Copy the file again, or write it again with `distcls data convert`."
    )
    with pytest.raises(DataError, match=f"sample {index}:"):
        list(eval_loader(damage(mixed, index)).batches())


def test_a_second_shards_samples_are_named_with_their_own_number(mixed, jpeg_beton):
    index = int(np.flatnonzero(mixed.samples["mode"] == 0)[5])
    both = damage(BetonDataset([jpeg_beton, jpeg_beton]), 60 + index)
    with pytest.raises(DataError, match=f"sample {index}:"):
        list(eval_loader(both).batches())


def test_a_stream_that_a_decoding_thread_collects_is_not_waited_for_there(raw, monkeypatch):
    """In a cycle with its frame, as an exception keeps it: whichever thread is at it frees it."""
    loader = eval_loader(raw, workers=1)
    expected = [batch.images.sum() for batch in loader.batches()]
    let_go, fill = threading.Event(), type(loader.slots[0]).fill
    collected = []

    def collects(slot, *arguments):
        let_go.wait(HANGS_S)
        if not collected:
            collected.append(gc.collect())
        return fill(slot, *arguments)

    monkeypatch.setattr(type(loader.slots[0]), "fill", collects)
    gc.disable()
    try:
        stream = loader.batches()
        stream.itself = stream
        del stream
    finally:
        let_go.set()
        gc.enable()
    loader._threads.submit(int).result(HANGS_S)  # after all that was asked for
    assert not loader.streaming
    assert [batch.images.sum() for batch in loader.batches()] == expected


def test_an_error_of_a_transform_reaches_the_consumer(mixed):
    class Late:
        def draw(self, windows, draws):
            if len(windows.top) > 2:
                raise DataError("not this batch")

    loader = train_loader(mixed, transforms=[Late()])
    with pytest.raises(DataError, match="not this batch"):
        hashes(loader, 0, 2)
    assert not loader.streaming


@pytest.mark.parametrize("resolution", [48, Resolution(start=32, end=48, ramp=(5, 8), multiple_of=8)])
def test_an_image_that_a_crop_is_too_large_for_is_told_before_the_first_batch(tmp_path, resolution):
    """Not when it comes, nor when the resolution has grown: that may be days later."""
    images = [np.zeros((60, 60, 3), np.uint8), np.zeros((41, 70, 3), np.uint8), np.zeros((80, 44, 3), np.uint8)]
    convert(Arrays(images, [0, 1, 2]), tmp_path / "a.beton", workers=1)
    dataset = BetonDataset(tmp_path / "a.beton")
    shape = {"resolution": resolution, "global_batch_size": 2}
    with pytest.raises(DataError) as caught:
        train_loader(dataset, transforms=[RandomCrop(2)], **shape)
    assert str(caught.value) == (
        "RandomCrop: an image of 70x41 with padding 2 is smaller than data.resolution 48: set padding to 4 or more, "
        "lower the resolution, or use RandomResizedCrop"
    )
    train_loader(dataset, transforms=[RandomCrop(4)], **shape)


def test_the_global_batch_must_be_dealt_evenly(raw):
    with pytest.raises(UserError) as caught:
        train_loader(raw, global_batch_size=25, world_size=2, accumulation_steps=2)
    assert str(caught.value) == (
        "train.global_batch_size: got 25, expected a multiple of 4 (2 ranks x 2 accumulation steps)"
    )
