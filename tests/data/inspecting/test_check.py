import hashlib
import os
import shutil
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.beton import file_format
from distcls.data.converting.convert import convert
from distcls.data.inspecting.check import FileCheck
from distcls.data.inspecting.scan import jpeg_size
from tests.data.conftest import Arrays, smooth
from tests.engine.launching import HANGS_S


def run(*paths):
    result = CliRunner().invoke(app, ["check", *map(str, paths), "--workers", "2"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def patch(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def row_at(index):
    return file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize + 24 * index


def first_jpeg(mixed):
    return int(np.flatnonzero(mixed.samples["mode"] == file_format.JPEG)[0])


def test_a_whole_file(jpeg_beton, mixed):
    code, text = run(jpeg_beton)
    assert code == 0
    jpegs = (mixed.samples["mode"] == file_format.JPEG).sum()
    assert text.splitlines() == [
        str(jpeg_beton),
        f"  ok     structure: 60 images ({jpegs} as JPEG), {jpeg_beton.stat().st_size / 2**20:.1f} MiB",
        f"  ok     sidecar: belongs to the file, {mixed.fingerprint}",
        "  ok     labels: 3 classes of 20 .. 20 .. 20 images (min, median, max)",
        "  ok     bytes: all as they were written (SHA-256)",
        "  ok     images: all 60 decode, in the sizes of the table",
    ]


def test_a_damaged_image_is_found_though_the_fingerprint_may_miss_it(jpeg_copy, mixed):
    index = first_jpeg(mixed)
    at = int(mixed.samples["address"][index]) - mixed._files[0].ctypes.data
    patch(jpeg_copy, at + int(mixed.samples["size"][index]) // 2, b"\xff\xd9" * 20)
    code, text = run(jpeg_copy)
    assert code == 1
    assert f"  FAULT  sample {index}: its JPEG data is damaged and cannot be decoded\n" in text


def test_a_jpeg_of_another_size(jpeg_copy, mixed):
    index = first_jpeg(mixed)
    height, width = int(mixed.samples["height"][index]), int(mixed.samples["width"][index])
    patch(jpeg_copy, row_at(index) + 1, np.array([width + 1], np.uint16).tobytes())
    code, text = run(jpeg_copy)
    assert code == 1
    assert f"  FAULT  sample {index}: is a JPEG of {width}x{height}, but {width + 1}x{height} in the table\n" in text
    assert "belongs to another file" in text


def test_a_file_without_structure(tmp_path):
    (tmp_path / "a.beton").write_bytes(b"")
    code, text = run(tmp_path / "a.beton")
    assert code == 1
    assert "  FAULT  " + str(tmp_path / "a.beton") + ": got 0 bytes" in text


def test_images_in_both_files_and_twice_in_one(tmp_path):
    generator = np.random.default_rng(3)
    images = [smooth(generator, 30, 40) for _ in range(12)]
    convert(Arrays(images[:8] + images[:1], [0] * 8 + [1], classes=3), tmp_path / "train.beton", workers=1)
    convert(Arrays([images[9], images[5], images[10]], [0, 1, 1], classes=3), tmp_path / "val.beton", workers=1)
    code, text = run(tmp_path / "train.beton", tmp_path / "val.beton")
    assert code == 1
    assert "  note   1 classes without images: class 2\n" in text
    assert "  note   1 images repeat an earlier one of this file: samples 0 = 8\n" in text
    assert "  note   1 of them under another label: samples 0 = 8\n" in text
    assert text.endswith("  FAULT  1 images are in both: samples 5 = 1\n")


def test_two_files_that_share_nothing(raw_beton, tmp_path, raw_images):
    convert(Arrays(list(255 - raw_images[:20]), [0] * 20), tmp_path / "val.beton", workers=1)
    code, text = run(raw_beton, tmp_path / "val.beton")
    assert code == 0
    assert text.endswith("  ok     no image is in both\n")


def test_the_size_in_a_jpegs_header():
    import cv2

    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]):
        data = cv2.imencode(".jpg", np.zeros((33, 47, 3), np.uint8), options)[1].tobytes()
        assert jpeg_size(data) == (33, 47)
    assert jpeg_size(data[:30]) is None
    assert jpeg_size(b"no JPEG at all") is None


def test_a_changed_pixel_that_still_decodes_is_found_by_the_hash(raw_beton, tmp_path):
    for suffix in (".beton", ".json"):
        shutil.copy(raw_beton.with_suffix(suffix), tmp_path / f"raw{suffix}")
    code, text = run(tmp_path / "raw.beton")
    assert code == 0
    assert "  ok     bytes: all as they were written (SHA-256)\n" in text
    at = 2**21 + 4999  # of an image, between the blocks that the fingerprint looks at
    patch(tmp_path / "raw.beton", at, bytes([255 - (tmp_path / "raw.beton").read_bytes()[at]]))
    code, text = run(tmp_path / "raw.beton")
    assert code == 1
    assert "  FAULT  its bytes are not those that were written (SHA-256): copy it again, or write it again\n" in text


def test_an_interrupt_does_not_wait_for_the_hash(raw_beton, monkeypatch):
    """Of 150 GB that takes minutes."""
    ended = threading.Event()

    class Slow:
        def __init__(self, data):
            ended.wait(HANGS_S)

        def hexdigest(self):
            return ""

    def interrupt(done):
        raise KeyboardInterrupt

    checked = FileCheck(raw_beton)
    monkeypatch.setattr(hashlib, "sha256", Slow)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        checked.decode(2, interrupt)
    assert threading.active_count() == before + 1  # it was not waited for
    ended.set()


def test_several_labels_per_image(several, tmp_path):
    code, text = run(several)
    assert code == 0
    assert (
        "  ok     labels: 4 classes of 1 .. 1 .. 3 images (min, median, max), 1.20 classes an image, 1 images with none\n"
    ) in text
    assert "  note   1 images repeat an earlier one of this file: samples 0 = 4\n" in text
    assert "  note   1 of them under another label: samples 0 = 4\n" in text


def test_a_file_that_is_shortened_while_it_is_read(raw_copy):
    """Its pages are gone: without a guard the process ends with SIGBUS."""
    size = raw_copy.stat().st_size
    checked = FileCheck(raw_copy)
    os.truncate(raw_copy, 2**21 + 400_000)
    checked.decode(2, lambda done: None)
    assert checked.findings[-1].text == (
        f"went from {size} to {2**21 + 400_000} bytes while it was read: try again when nobody writes to it"
    )
    assert [finding.level for finding in checked.findings] == ["ok", "ok", "ok", "FAULT"]
