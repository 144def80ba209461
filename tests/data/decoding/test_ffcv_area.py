"""data.interpolation: ffcv_area against FFCV's own decoders, on the same crops of the same file."""

import numpy as np
import pytest
import torch

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.augmenting.windows import Windows, draw_windows
from distcls.data.decoding.resize_plain import resize_plainly
from distcls.data.loader import EvalLoader
from tests.data.decoding.test_packed import levels as packed_levels
from tests.data.decoding.test_packed import make, pack

SIZES = [16, 31, 48, 96]  # of images with 40..119 pixels a side: shrunk, enlarged, and one of each


@pytest.fixture
def ffcv_plain():
    """FFCV as it is, but for its compilation, which takes ten seconds a loader."""
    from ffcv.pipeline.compiler import Compiler

    Compiler.set_enabled(False)
    yield
    Compiler.set_enabled(True)


def by_ffcv(path, decoder):
    """All images of a file as FFCV's Loader gives them, (N, R, R, 3)."""
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    loader = Loader(
        str(path), batch_size=20, num_workers=1, order=OrderOption.SEQUENTIAL, os_cache=True,
        pipelines={"image": [decoder, ToTensor()], "label": None},
    )  # fmt: skip
    return torch.cat([images.clone() for (images,) in loader]).numpy()


def levels(batches, dataset):
    """Whole levels 0..255 of batches that were normalised, (N, R, R, 3)."""
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).double()
    return ((images * torch.tensor(dataset.std) + torch.tensor(dataset.mean)) * 255).round().numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [1.0, 224 / 256])
def test_evaluation_is_ffcvs_centre_crop(ffcv_plain, mixed, jpeg_beton, size, ratio):
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder

    theirs = by_ffcv(jpeg_beton, CenterCropRGBImageDecoder((size, size), ratio))
    loader = EvalLoader(
        mixed, resolution=size, crop_ratio=ratio, batch_size=30, workers=2, device="cpu", interpolation="ffcv_area",
        dtype=torch.float64,
    )  # fmt: skip
    with loader.batches() as batches:
        assert np.array_equal(levels(batches, mixed), theirs)


@pytest.mark.parametrize("size", SIZES)
def test_training_crops_are_ffcvs_random_resized_crops(ffcv_plain, mixed, jpeg_beton, size):
    """FFCV's decoder with our crops in place of those that it would draw; then our flips."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder

    transforms = [RandomResizedCrop(), RandomHorizontalFlip()]
    batch_size = 60
    loader = make(
        mixed, resolution=size, transforms=transforms, global_batch_size=batch_size, interpolation="ffcv_area"
    )
    with loader.stream(0, 1) as stream:
        [batch] = stream
    order = batch.index.numpy()
    samples = mixed.samples[order]
    windows = draw_windows(transforms, Windows.centred(samples["height"], samples["width"], size), 1, 0, np.arange(60))
    places = np.argsort(order)  # FFCV goes through the file in order
    crops = iter(
        zip(*(one[places].tolist() for one in (windows.top, windows.left, windows.rows, windows.cols)), strict=True)
    )

    class Given(RandomResizedCropRGBImageDecoder):
        @property
        def get_crop_generator(self):
            return lambda height, width, scale, ratio: next(crops)

    theirs = by_ffcv(jpeg_beton, Given((size, size)))[order]
    mirrored = windows.flip == 1
    theirs[mirrored] = theirs[mirrored][:, :, ::-1]
    assert np.array_equal(levels([batch], mixed), theirs)

    # For a GPU: the same up to the rounding to whole levels, and of OpenCV's arithmetic in 11 bits where it enlarges.
    other = make(mixed, resolution=size, transforms=transforms, global_batch_size=batch_size, interpolation="ffcv_area")
    pack(other)
    with other.stream(0, 1) as stream:
        packed = packed_levels(next(stream).images).numpy()
    assert np.abs(packed - theirs).max() < 0.8


@pytest.mark.parametrize(
    ("rows", "cols"), [(64, 64), (40, 60), (33, 47), (32, 90), (20, 20), (12, 31), (50, 7), (1, 1)]
)
def test_the_twins_filter_is_opencvs(rows, cols):
    import cv2

    image = np.random.default_rng(rows).integers(0, 256, (rows, cols, 3), np.uint8)
    table = torch.tensor([(0, rows, cols, 0, 3 * cols, 3, 1)])
    pixels = torch.from_numpy(image.reshape(-1))
    normal = ((0, 0, 0), (1, 1, 1))
    mine = (
        resize_plainly(pixels, table, 16, *normal, torch.float32, interpolation="ffcv_area")[0].permute(1, 2, 0) * 255
    )
    theirs = cv2.resize(image.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA)
    assert np.abs(mine.numpy() - theirs).max() < 2e-3
