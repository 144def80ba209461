"""data.gpu_decode_share: which images it takes, and their way through a packed batch, with the host's decoder in the GPU's place."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distcls.data.augmenting.augment import RandomCrop, RandomHorizontalFlip
from distcls.data.augmenting.draws import in_share
from distcls.data.beton.file_format import JPEG
from distcls.data.errors import DataError
from distcls.engine.checks.fit_ranks import check_device
from distcls.engine.checks.plugins import import_parts
from distcls.recipe.errors import RecipeError
from distcls.recipe.schema import check
from distcls.recipe.source import read
from tests.data.decoding.test_packed import batches, levels, make, pack
from tests.data.test_loader import damage


def test_a_share_is_a_function_of_the_samples_number():
    indices = np.arange(100_000)
    for share in (0.1, 0.25, 0.7):
        assert in_share(indices, share).mean() == pytest.approx(share, abs=0.006)
        assert np.array_equal(in_share(indices, share)[::-3], in_share(indices[::-3], share))
    assert (in_share(indices, 0.25) <= in_share(indices, 0.7)).all()
    assert not in_share(indices, 0.0).any()
    assert in_share(indices, 1.0).all()


@pytest.mark.parametrize("share", [0.4, 1.0])
@pytest.mark.parametrize("shape", [{"resolution": 64}, {"interpolation": "bicubic"}, {"interpolation": "ffcv_area"}])
def test_its_images_agree_and_the_others_are_the_same(mixed, share, shape):
    """Agree as two decoders do: torchvision's DCT is the slow and exact one. Where a crop is twice as large as the output
    the CPU decodes at half the size besides."""
    alone, shared = make(mixed, **shape), make(mixed, gpu_decode_share=share, **shape)
    pack(alone)
    pack(shared)
    taken = 0
    for one, two in zip(batches(alone, 0, 4), batches(shared, 0, 4), strict=True):
        assert torch.equal(one.target, two.target)
        index = one.index.numpy()
        decoded = torch.from_numpy(in_share(index, share) & (mixed.samples["mode"][index] == JPEG))
        taken += int(decoded.sum())
        assert torch.equal(one.images[~decoded], two.images[~decoded])
        difference = (levels(one.images[decoded]) - levels(two.images[decoded])).abs()
        assert 0 < difference.mean() < 2.5
    assert taken > 10


def test_a_crop_beyond_the_image_is_black_there(mixed):
    """The host makes it so: beside an image that the GPU has decoded lies something else."""
    shape = {"resolution": 40, "transforms": [RandomCrop(20), RandomHorizontalFlip()]}
    alone, shared = make(mixed, **shape), make(mixed, gpu_decode_share=1.0, **shape)
    pack(alone)
    pack(shared)
    inside = 0
    for one, two in zip(batches(alone, 0, 4), batches(shared, 0, 4), strict=True):
        difference = (levels(one.images) - levels(two.images)).abs().mean((1, 2, 3))
        assert difference.max() < 3
        jpegs = mixed.samples["mode"][one.index.numpy()] == JPEG
        inside += int((difference[torch.from_numpy(jpegs)] > 0).sum())
    assert inside > 4


def test_workers_ranks_and_starting_points_change_nothing(mixed):
    def images(first=0, last=4, **shape):
        loader = make(mixed, gpu_decode_share=0.5, **shape)
        pack(loader)
        return [batch.images for batch in batches(loader, first, last)]

    whole = images(accumulation_steps=2, workers=1)
    ranks = [images(rank=rank, world_size=2, workers=3) for rank in (0, 1)]
    dealt = [chunk for step in zip(*ranks, strict=True) for chunk in step]
    assert all(torch.equal(one, two) for one, two in zip(whole, dealt, strict=True))
    resumed = images(first=2, accumulation_steps=2)
    assert all(torch.equal(one, two) for one, two in zip(whole[4:], resumed, strict=True))


def test_a_damaged_jpeg_of_the_share_is_named(mixed, jpeg_beton):
    index = int(np.flatnonzero(mixed.samples["mode"] == JPEG)[5])
    copy = damage(mixed, index)
    copy.samples["size"][index] = 100  # its header alone: what is cut off later, this decoder does not say
    loader = make(copy, gpu_decode_share=1.0)
    pack(loader)
    with pytest.raises(DataError) as caught:
        batches(loader, 0, 4)
    assert str(caught.value) == (
        f"{jpeg_beton}: sample {index}: its JPEG data is damaged and cannot be decoded. "
        "Copy the file again, or write it again with `distcls data convert`."
    )


def test_a_gpu_without_memory_is_no_damage(mixed):
    loader = make(mixed, gpu_decode_share=1.0)

    def decode(files):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for transfer in pack(loader):
        transfer.decode = decode
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        batches(loader, 0, 1)


def test_on_a_cpu_it_is_refused_at_its_place(tiny_recipe: Path):
    import_parts()
    tiny_recipe.write_text(
        tiny_recipe.read_text().replace("  workers: 1\n", "  workers: 1\n  gpu_decode_share: 0.25\n")
    )
    source = read(tiny_recipe, [])
    with pytest.raises(RecipeError) as caught:
        check_device(check(source), source, torch.device("cpu"))
    assert str(caught.value).splitlines()[1] == (
        f"{tiny_recipe}:11:3: data.gpu_decode_share: there is no GPU to decode with: got 0.25, "
        "expected 0 for a run on a CPU"
    )
