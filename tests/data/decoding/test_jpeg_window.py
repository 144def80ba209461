"""A JPEG's window decoded alone: the pixels of the whole image's decoding, errors that end nothing, no memory left."""

import io
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distcls.data.augmenting.augment import RandomCrop, RandomHorizontalFlip, RandomResizedCrop
from distcls.data.beton.file_format import JPEG, SAMPLE
from distcls.data.decoding import jpeg_window
from distcls.data.decoding.decode_cpu import pack_windows
from distcls.data.decoding.jpeg_window import WHOLE, WindowDecoder, build, library_path, load
from distcls.data.loader import EvalLoader
from tests.data.conftest import smooth, train_loader
from tests.data.test_loader import damage, hashes


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> WindowDecoder:
    path = library_path(tmp_path_factory.mktemp("window"))
    if reason := build(path):
        pytest.skip(f"cannot compile it: {reason}")
    found = load(path)
    assert found.name.startswith("windows, libjpeg-turbo ")
    return found


def encoded(image: np.ndarray, **options) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def unpack(file: np.ndarray, size: tuple[int, int], window: tuple[int, ...], decoder: WindowDecoder):
    """(status, pixels) of window (top, left, rows, cols, denominator)."""
    sample = np.zeros(1, SAMPLE)
    sample["address"], sample["size"], sample["mode"] = file.ctypes.data, len(file), JPEG
    sample["height"], sample["width"] = size
    top, left, rows, cols, denominator = window
    out, status = np.full(rows * cols * 3, 7, np.uint8), np.full(1, 9, np.int32)
    packed = np.array([[top, left, rows, cols, 0, denominator]], np.int32)
    pack_windows(sample, np.zeros(1, np.int64), packed, decoder.address, np.zeros(1, np.int64), out, status)
    return int(status[0]), out.reshape(rows, cols, 3)


@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_pixels_are_those_of_the_whole_image(decoder, subsampling, progressive):
    generator = np.random.default_rng(subsampling)
    for _ in range(12):
        height, width = (int(side) for side in generator.integers(17, 200, 2))
        image = smooth(generator, height, width) // 2 + generator.integers(0, 128, (height, width, 3), np.uint8)
        file = encoded(image, quality=90, subsampling=subsampling, progressive=progressive)
        for denominator in (1, 2, 4, 8):
            limits = -(-height // denominator), -(-width // denominator)
            for _ in range(4):
                rows, cols = (int(generator.integers(1, limit + 1)) for limit in limits)
                top, left = (
                    int(generator.integers(0, limit - n + 1)) for limit, n in zip(limits, (rows, cols), strict=True)
                )
                window = (top, left, rows, cols, denominator)
                alone, whole = (unpack(file, (height, width), window, one) for one in (decoder, WHOLE))
                assert alone[0] == whole[0] == 0
                assert np.array_equal(alone[1], whole[1]), window


def test_gray_jpegs(decoder):
    file = encoded(smooth(np.random.default_rng(0), 60, 90)[:, :, 0], quality=90)
    alone, whole = (unpack(file, (60, 90), (10, 21, 30, 33, 1), one) for one in (decoder, WHOLE))
    assert alone[0] == whole[0] == 0
    assert np.array_equal(alone[1], whole[1])


@pytest.mark.parametrize(
    "shape", [{"resolution": 28}, {"resolution": 12}, {"resolution": 48, "transforms": [RandomCrop(12)]}]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "ffcv_area"])
def test_a_run_has_the_same_batches_with_and_without_it(mixed, decoder, shape, interpolation):
    """Also where a crop reaches beyond the image, which is decoded whole then."""
    shape = {"interpolation": interpolation, **shape}
    assert hashes(train_loader(mixed, jpeg=decoder, **shape), 0, 4) == hashes(
        train_loader(mixed, jpeg=WHOLE, **shape), 0, 4
    )


def test_damage_before_the_windows_end_is_found_and_beyond_it_is_not_read(decoder):
    file = encoded(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8), quality=90)
    cut = file[: len(file) // 2].copy()
    assert unpack(cut, (128, 128), (70, 0, 58, 128, 1), decoder)[0] == 1
    status, pixels = unpack(cut, (128, 128), (0, 0, 40, 128, 1), decoder)
    assert status == 0
    assert np.array_equal(pixels, unpack(file, (128, 128), (0, 0, 40, 128, 1), WHOLE)[1])


@pytest.mark.parametrize("alone", [True, False], ids=["window", "whole"])
@pytest.mark.parametrize("damaged", ["empty", "no JPEG", "header only", "cut off"])
def test_what_is_no_jpeg_is_an_error_and_nothing_more(decoder, damaged, alone):
    file = encoded(smooth(np.random.default_rng(0), 64, 64), quality=90)
    data = {"empty": file[:0], "no JPEG": file[::-1].copy(), "header only": file[:200].copy(), "cut off": file[:650]}
    for _ in range(3):
        assert unpack(data[damaged], (64, 64), (8, 8, 30, 30, 1), decoder if alone else WHOLE)[0] != 0
    assert unpack(file, (64, 64), (8, 8, 30, 30, 1), decoder if alone else WHOLE)[0] == 0


@pytest.mark.parametrize("alone", [True, False], ids=["window", "whole"])
@pytest.mark.parametrize("size", [(64, 48), (63, 48), (65, 48), (64, 47), (32, 24), (128, 96), (48, 64)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 30}], ids=str)
def test_a_jpeg_of_another_size_than_the_tables_is_an_error(decoder, alone, size, options):
    """FFCV's decoder would scale it, or fill a part of the pixels and leave in the others what was there before."""
    file = encoded(smooth(np.random.default_rng(0), 64, 48), quality=90, **options)
    status, _ = unpack(file, size, (2, 3, 20, 20, 1), decoder if alone else WHOLE)
    assert (status == 0) == (size == (64, 48))


def test_a_damaged_sample_is_named(mixed, decoder, jpeg_beton):
    index = int(np.flatnonzero(mixed.samples["mode"] == JPEG)[5])
    loader = EvalLoader(
        damage(mixed, index), resolution=28, crop_ratio=1.0, batch_size=30, workers=2, device="cpu", jpeg=decoder
    )
    with pytest.raises(Exception, match=f"^{jpeg_beton}: sample {index}: its JPEG data is damaged"):
        list(loader.batches())


def test_nothing_is_left_in_memory_by_windows_or_by_errors(decoder):
    """One image's tables and buffers are some 100 kB: 3000 of them left behind would be 300 MB."""
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    file = encoded(image, quality=90)
    cut = file[: len(file) // 3].copy()

    def work(times):
        for _ in range(times):
            assert unpack(file, (200, 300), (60, 50, 100, 90, 1), decoder)[0] == 0
            assert unpack(cut, (200, 300), (150, 50, 50, 90, 1), decoder)[0] == 1

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    work(100)
    before = resident()
    work(1500)
    assert resident() - before < 60e6


def test_without_a_compiler_or_the_header_it_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    assert build(tmp_path / "library.so") == "false ended with status 1"
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert build(tmp_path / "library.so") == "there is no C compiler"
    assert list(tmp_path.iterdir()) == []
    assert load(tmp_path / "library.so") is WHOLE


def test_an_older_library_is_not_loaded(tmp_path, monkeypatch):
    changed = tmp_path / "jpeg_window.c"
    changed.write_bytes(jpeg_window.SOURCE.read_bytes() + b"\n")
    before = library_path()
    monkeypatch.setattr(jpeg_window, "SOURCE", changed)
    assert library_path(before.parent) != before


BROKEN = """
import sys
import numpy as np
from pathlib import Path
from distcls.data.decoding.jpeg_window import load
from tests.data.decoding.test_jpeg_window import unpack
decoder = load(Path(sys.argv[1]))
generator = np.random.default_rng(0)
file = np.fromfile(sys.argv[2], np.uint8)
ends = set()
for _ in range(2000):
    broken = file.copy()
    broken[generator.integers(0, len(file), generator.integers(1, 12))] = generator.integers(0, 256)
    broken = broken[: generator.integers(2, len(file) + 1)].copy()
    ends.add(unpack(broken, (96, 128), (40, 30, 50, 60, 1), decoder)[0])
assert ends == {0, 1}, ends
"""


def test_no_damage_ends_the_process(decoder, tmp_path):
    """2000 times: bytes changed at random places, and the end cut off."""
    library = library_path(tmp_path)
    assert build(library) is None
    encoded(smooth(np.random.default_rng(0), 96, 128), quality=90).tofile(tmp_path / "one.jpg")
    command = [sys.executable, "-c", BROKEN, str(library), str(tmp_path / "one.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_threads_share_it(mixed, decoder):
    shape = {"transforms": [RandomResizedCrop(), RandomHorizontalFlip()], "jpeg": decoder}
    assert hashes(train_loader(mixed, workers=4, **shape), 0, 20) == hashes(
        train_loader(mixed, workers=1, **shape), 0, 20
    )
