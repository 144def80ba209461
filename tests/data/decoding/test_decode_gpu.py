"""On a GPU: python -m pytest tests/data/decoding/test_decode_gpu.py"""

import numpy as np
import pytest
import torch

from distcls.data.augmenting.augment import RandomCrop, RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.draws import in_share
from distcls.data.beton.file_format import JPEG
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.resize_plain import resize_plainly
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader
from tests.data.conftest import Arrays, smooth, train_loader
from tests.data.decoding.test_packed import example

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

NORMAL = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def batches(some, *span):
    with some.stream(*span) if span else some.batches() as stream:
        return list(stream)


def levels(images, dataset):
    """What was normalised, on the scale 0..255."""
    pixels = images.float().cpu().permute(0, 2, 3, 1)
    return (pixels * torch.tensor(dataset.std) + torch.tensor(dataset.mean)) * 255


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("resolution", [7, 20, 224])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "ffcv_area"])
def test_the_kernel_computes_what_its_plain_twin_does(dtype, tolerance, resolution, interpolation):
    from distcls.data.decoding.decode_gpu import resize_windows

    packed, table = (tensor.cuda() for tensor in example())
    kernel = resize_windows(packed, table, resolution, *NORMAL, dtype, interpolation=interpolation)
    plain = resize_plainly(packed, table, resolution, *NORMAL, dtype, interpolation=interpolation)
    assert kernel.stride() == plain.stride()
    assert kernel.dtype == dtype
    assert (kernel.float() - plain.float()).abs().max() < tolerance


@pytest.mark.parametrize("transforms", [[RandomResizedCrop(), RandomHorizontalFlip()], [RandomCrop(4)]])
def test_the_gpus_images_are_the_cpus_up_to_rounding(raw, transforms):
    ours = batches(train_loader(raw, device="cpu", transforms=transforms), 0, 50)
    theirs = batches(train_loader(raw, device="cuda", transforms=transforms), 0, 50)
    for one, two in zip(ours, theirs, strict=True):
        assert (levels(one.images, raw) - levels(two.images, raw)).abs().max() < 0.51
        assert torch.equal(one.target, two.target.cpu())
        assert torch.equal(one.index, two.index)


@pytest.mark.parametrize(("interpolation", "tolerance"), [("bilinear", 0.51), ("bicubic", 1.2)])
def test_jpegs_and_raw_images_of_many_sizes(mixed, interpolation, tolerance):
    shape = {"resolution": 16, "interpolation": interpolation}
    ours, theirs = (batches(train_loader(mixed, device=device, **shape), 0, 10) for device in ("cpu", "cuda"))
    for one, two in zip(ours, theirs, strict=True):
        assert (levels(one.images, mixed) - levels(two.images, mixed)).abs().max() < tolerance


def test_workers_ranks_and_starting_points_change_no_bit(mixed):
    whole = batches(train_loader(mixed, device="cuda", accumulation_steps=2, workers=1), 0, 4)
    ranks = [batches(train_loader(mixed, device="cuda", rank=rank, world_size=2, workers=3), 0, 4) for rank in (0, 1)]
    dealt = [chunk for step in zip(*ranks, strict=True) for chunk in step]
    resumed = batches(train_loader(mixed, device="cuda", accumulation_steps=2), 2, 4)
    assert all(torch.equal(one.images, two.images) for one, two in zip(whole, dealt, strict=True))
    assert all(torch.equal(one.images, two.images) for one, two in zip(whole[4:], resumed, strict=True))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """512 raw images of 64..255 pixels a side: buffers have to grow."""
    generator = np.random.default_rng(3)
    images = [smooth(generator, *generator.integers(64, 256, 2)) for _ in range(512)]
    path = tmp_path_factory.mktemp("large") / "large.beton"
    convert(Arrays(images, [i % 10 for i in range(512)]), path, write_mode="raw", workers=2)
    return BetonDataset(path)


@pytest.mark.parametrize(("data", "gpu_decode_share"), [("large", 0.0), ("mixed", 1.0)])
def test_no_buffer_is_overwritten_while_the_gpu_is_behind(data, gpu_decode_share, request):
    """The consumer only queues: the GPU works on the first batch when the last is asked for."""
    dataset = request.getfixturevalue(data)
    shape = {"device": "cuda", "resolution": 64, "gpu_decode_share": gpu_decode_share}
    expected = [
        batch.images.sum(dtype=torch.float64).item() for batch in batches(train_loader(dataset, **shape), 0, 60)
    ]
    busy = torch.randn(4096, 4096, device="cuda")
    sums = []
    with train_loader(dataset, **shape).stream(0, 60) as stream:
        for batch in stream:
            for _ in range(4):
                busy = torch.mm(busy, busy).clamp(-1, 1)
            sums.append(batch.images.sum(dtype=torch.float64))
    assert [value.item() for value in sums] == expected


def test_a_batch_costs_a_handful_of_gpu_operations(raw):
    from torch.profiler import ProfilerActivity, profile

    with train_loader(raw, device="cuda", global_batch_size=200).stream(0, 40) as stream:
        for _ in range(10):
            next(stream)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            for _ in range(20):
                next(stream)
            torch.cuda.synchronize()
    operations = [event for event in record.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert 20 <= len(operations) <= 20 * 5


def test_evaluation_pads_and_leaving_early_harms_nothing(mixed):
    shape = {"resolution": 24, "batch_size": 25, "workers": 2, "mean": NORMAL[0], "std": NORMAL[1]}
    ours, theirs = (EvalLoader(mixed, device=device, **shape) for device in ("cpu", "cuda"))
    for _ in theirs.batches():
        break
    with train_loader(mixed, device="cuda").stream(0, 100) as training:
        for one, two in zip(batches(ours), batches(theirs), strict=True):
            next(training)
            assert one.count == two.count
            assert torch.equal(one.target, two.target.cpu())
            assert (one.images - two.images.cpu()).abs().max() < 0.51 / 255 / 0.2


def test_ffcvs_filter_is_the_cpus_up_to_rounding(mixed):
    """OpenCV computes in 11 bits where it enlarges."""
    shape = {"resolution": 40, "interpolation": "ffcv_area"}
    ours, theirs = (batches(train_loader(mixed, device=device, **shape), 0, 10) for device in ("cpu", "cuda"))
    for one, two in zip(ours, theirs, strict=True):
        assert (levels(one.images, mixed) - levels(two.images, mixed)).abs().max() < 0.8


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "ffcv_area"])
def test_images_that_the_gpu_decodes_agree_and_the_others_are_the_same(mixed, share, interpolation):
    shape = {"resolution": 64, "interpolation": interpolation}
    alone, shared = (
        batches(train_loader(mixed, device="cuda", gpu_decode_share=some, **shape), 0, 10) for some in (0.0, share)
    )
    for one, two in zip(alone, shared, strict=True):
        index = one.index.numpy()
        decoded = torch.from_numpy(in_share(index, share) & (mixed.samples["mode"][index] == JPEG))
        assert torch.equal(one.images[~decoded.cuda()], two.images[~decoded.cuda()])
        difference = (levels(one.images, mixed) - levels(two.images, mixed))[decoded].abs()
        assert difference.mean() < 2.5


def test_a_damaged_jpeg_that_the_gpu_decodes_is_named(mixed):
    index = int(np.flatnonzero(mixed.samples["mode"] == JPEG)[5])
    copy = BetonDataset(mixed.paths)
    copy.samples["size"][index] = 100
    with pytest.raises(DataError, match=f"sample {index}: its JPEG data is damaged"):
        batches(train_loader(copy, device="cuda", gpu_decode_share=1.0), 0, 4)
