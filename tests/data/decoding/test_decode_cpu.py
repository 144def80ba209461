import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from distcls.data.augmenting.windows import Windows
from distcls.data.beton.file_format import JPEG, RAW, SAMPLE
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_windows
from distcls.data.decoding.ffcv_library import ffcv_library
from distcls.data.decoding.plan import Plan
from distcls.data.errors import DataError
from tests.data.conftest import Arrays, smooth


def decode(dataset, indices, windows, size, interpolation="bilinear"):
    """Windows are (top, left, rows, cols, flip) each; images are decoded at full size."""
    indices = np.asarray(indices, np.int64)
    out = np.empty((len(indices), size, size, 3), np.uint8)
    status = np.full(len(indices), 9, np.int32)
    full_size = np.c_[np.asarray(windows, np.int32), np.ones(len(windows), np.int32)]
    decode_windows(dataset.samples, indices, full_size, 0, interpolation, out, status)
    assert not status.any()
    return out


def raw_sample(dataset, images, skip=0):
    """The number and pixels of an image that is stored raw."""
    index = int(np.flatnonzero(dataset.samples["mode"] == RAW)[skip])
    return index, images[index]


@pytest.mark.parametrize("size", [16, 24, 31, 64, 150])
def test_the_resize_is_pillows_and_torchvisions(mixed, jpeg_images, size):
    index, image = raw_sample(mixed, jpeg_images)
    top, left, rows, cols = 3, 5, image.shape[0] - 7, image.shape[1] - 6
    out = decode(mixed, [index], [(top, left, rows, cols, 0)], size)[0].astype(int)

    window = image[top : top + rows, left : left + cols]
    pillow = np.asarray(Image.fromarray(window).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    exact = torch.from_numpy(window).permute(2, 0, 1).double()
    exact = functional.resize(exact, [size, size], antialias=True).permute(1, 2, 0).numpy()
    assert np.abs(out - exact).max() <= 0.501  # the nearest level
    assert np.abs(out - pillow).max() <= 1  # Pillow rounds between its two passes


@pytest.fixture(scope="module")
def edges(tmp_path_factory) -> tuple[BetonDataset, list[np.ndarray]]:
    """Stored raw: a smooth image, noise of all levels, noise and squares of black and white; wide, tall, a line."""
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, (*size, 3), np.uint8) for size in ((61, 90), (130, 41), (1, 17), (200, 2))]
    squares = np.kron(generator.integers(0, 2, (9, 12, 3)), np.ones((8, 8, 1), int)) * 255
    images = [smooth(generator, 70, 83), *noise, (noise[0] >> 7) * 255, (noise[1] >> 7) * 255, squares.astype(np.uint8)]
    path = tmp_path_factory.mktemp("edges") / "edges.beton"
    convert(Arrays(images, [0] * len(images)), path, write_mode="raw", workers=1)
    return BetonDataset(path), images


def by_pillow(window: np.ndarray, size: int) -> np.ndarray:
    """Lines, then columns: so does resize(), but from Pillow 13 on with windows that are shrunk in height above all."""
    lines = Image.fromarray(window).resize((size, len(window)), Image.Resampling.BICUBIC)
    return np.asarray(lines.resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [1, 16, 31, 64, 97, 224])
def test_bicubic_is_pillows_to_the_bit(edges, size):
    """Shrunk and enlarged, with what overshoots at edges."""
    dataset, images = edges
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        for top, left in ((0, 0), (height // 3, width // 4)):
            window = image[top:, left:]
            straight, mirrored = decode(
                dataset, [index] * 2, [(top, left, *window.shape[:2], flip) for flip in (0, 1)], size, "bicubic"
            )
            expected = by_pillow(window, size)
            assert np.array_equal(straight, expected)
            assert np.array_equal(mirrored, expected[:, ::-1])


@pytest.mark.parametrize("size", [16, 64, 224])
def test_bicubic_is_torchvisions(edges, size):
    """On bytes, whose weights it rounds to 16 bits, within two levels; on floats, cut off at the end alone, without edges."""
    dataset, images = edges
    for index, image in enumerate(images):
        out = decode(dataset, [index], [(0, 0, *image.shape[:2], 0)], size, "bicubic")[0].astype(int)
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        how = {"interpolation": functional.InterpolationMode.BICUBIC, "antialias": True}
        theirs = functional.resize(pixels, [size, size], **how).permute(1, 2, 0).numpy()
        assert np.abs(out - theirs).max() <= 2
        exact = functional.resize(pixels.double(), [size, size], **how).permute(1, 2, 0).numpy()
        if index == 0:
            assert 0 < exact.min() < exact.max() < 255
            assert np.abs(out - exact).max() <= 1.2


def test_a_mirrored_window_is_the_mirrored_image(mixed, jpeg_images):
    index, _ = raw_sample(mixed, jpeg_images)
    straight, mirrored = decode(mixed, [index] * 2, [(2, 3, 30, 33, 0), (2, 3, 30, 33, 1)], 24)
    assert np.array_equal(mirrored, straight[:, ::-1])


@pytest.mark.parametrize(("interpolation", "denominator"), [("bilinear", 4), ("bicubic", 1), ("ffcv_area", 1)])
def test_only_bilinear_takes_smaller_decoding(interpolation, denominator):
    samples = np.zeros(2, SAMPLE)
    samples["height"] = samples["width"] = 100
    samples["mode"] = [JPEG, RAW]
    windows = Windows.centred(samples["height"], samples["width"], 20)
    plan = Plan.of(samples, np.arange(2), windows, np.zeros(2, np.int64), interpolation)
    assert plan.windows[:, 5].tolist() == [denominator, 1]


def test_a_window_of_the_output_size_is_copied_and_black_beyond_the_image(raw, raw_images):
    windows = [(0, 0, 28, 28, 0), (0, 0, 28, 28, 1), (-3, 4, 28, 28, 0), (5, -2, 28, 28, 1)]
    out = decode(raw, [7, 8, 9, 10], windows, 28)
    framed = np.pad(raw_images[7:11], ((0, 0), (6, 6), (6, 6), (0, 0)))
    for i, (top, left, _, _, flip) in enumerate(windows):
        expected = framed[i, top + 6 : top + 34, left + 6 : left + 34]
        assert np.array_equal(out[i], expected[:, ::-1] if flip else expected), windows[i]


def test_jpegs_are_decoded(mixed, jpeg_images):
    indices = np.flatnonzero(mixed.samples["mode"] == JPEG)
    assert 15 <= len(indices) <= 45
    for index in indices:
        height, width, _ = jpeg_images[index].shape
        out = decode(mixed, [index], [(height // 2 - 16, width // 2 - 16, 32, 32, 0)], 32)[0].astype(int)
        expected = jpeg_images[index][height // 2 - 16 :, width // 2 - 16 :][:32, :32]
        assert np.abs(out - expected).mean() < 4


def test_no_sample_is_black(raw):
    assert not decode(raw, [-1, -1], [(0, 0, 28, 28, 0)] * 2, 28).any()


def test_without_ffcv_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError) as caught:
        ffcv_library()
    assert str(caught.value) == (
        "FFCV is not installed, or without its native library _libffcv: "
        "`apt install libopencv-dev libturbojpeg0-dev pkg-config g++`, then `pip install ffcv`; "
        "without root install a wheel that launch/ffcv_wheel.sh made on another machine"
    )


@pytest.mark.parametrize(("resolution", "denominator"), [(50, 1), (40, 2), (20, 4), (10, 8), (5, 8)])
def test_a_jpeg_much_larger_than_the_output_is_decoded_smaller(tmp_path, resolution, denominator):
    """The image says where it was looked at: red is the column, green the row."""
    y, x = np.mgrid[:97, :121].astype(np.uint8)
    convert(Arrays([np.stack((x, y, x), 2)], [0]), tmp_path / "one.beton", write_mode="jpg", quality=95, workers=1)
    dataset = BetonDataset(tmp_path / "one.beton")
    sizes = np.array([97]), np.array([121])
    windows = Windows(resolution, *sizes, *(np.array([value]) for value in (7, 13, 85, 90, 0)))
    packed = windows.packed(np.array([True]))
    assert packed[0, 5] == denominator
    assert windows.packed(np.array([False])).tolist() == [[7, 13, 85, 90, 0, 1]]

    out, status = np.empty((1, resolution, resolution, 3), np.uint8), np.empty(1, np.int32)
    decode_windows(dataset.samples, np.zeros(1, np.int64), packed, 0, "bilinear", out, status)
    assert status[0] == 0
    centres = (np.arange(resolution) + 0.5) / resolution
    tolerance = denominator / 2 + 2.5  # the edges' rounding, and JPEG's
    assert np.abs(out[0, :, :, 0].mean(0) - (13 + 90 * centres - 0.5)).max() < tolerance
    assert np.abs(out[0, :, :, 1].mean(1) - (7 + 85 * centres - 0.5)).max() < tolerance


@pytest.mark.parametrize("side", [1, 64, 97, 128, 511, 4000])
@pytest.mark.parametrize("resolution", [1, 7, 32, 224])
def test_smaller_windows_stay_inside_and_as_large_as_the_output(side, resolution):
    generator = np.random.default_rng(side)
    height, width = np.full(300, side), np.full(300, side + 13)
    rows, cols = generator.integers(1, height + 1), generator.integers(1, width + 1)
    top, left = generator.integers(0, height - rows + 1), generator.integers(0, width - cols + 1)
    packed = Windows(resolution, height, width, top, left, rows, cols, rows * 0).packed(np.full(300, True)).astype(int)
    denominator = packed[:, 5]
    assert (packed[:, :2] >= 0).all()
    assert (packed[:, 0] + packed[:, 2] <= -(-height // denominator)).all()
    assert (packed[:, 1] + packed[:, 3] <= -(-width // denominator)).all()
    assert (packed[:, 2:4].min(1) >= np.where(denominator > 1, resolution, 1)).all()
