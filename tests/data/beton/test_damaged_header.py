"""Damage in every part of a .beton's structure: an error that names the file, never a traceback, a hang or a crash."""

import numpy as np
import pytest

from distcls.data.beton import file_format
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_whole
from distcls.data.errors import DataError
from tests.data.conftest import Arrays
from tests.data.test_dataset import header, overwrite, refusal


def field(name):
    return file_format._HEADER.fields[name][1]


def record(index):
    return file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize + 24 * index


def test_another_version(jpeg_copy):
    overwrite(jpeg_copy, field("version"), np.uint16(3).tobytes())
    assert refusal(jpeg_copy) == (
        f"{jpeg_copy}: not an FFCV .beton file: got version 3 with 2 fields, expected version 2 with an image and a label. "
        "Write it again with `distcls data convert`."
    )


def test_no_samples(jpeg_copy):
    overwrite(jpeg_copy, field("samples"), bytes(8))
    assert refusal(jpeg_copy) == f"{jpeg_copy}: holds no samples. Write it again with `distcls data convert`."


@pytest.mark.parametrize("samples", [61, 10**6, 2**63 - 1, 2**64 - 1])
def test_more_samples_than_there_are(jpeg_copy, samples):
    overwrite(jpeg_copy, field("samples"), np.uint64(samples).tobytes())
    assert f"{jpeg_copy}: " in refusal(jpeg_copy)


@pytest.mark.parametrize("place", [1, 7, 2**40, 2**64 - 1])
def test_an_allocation_table_somewhere_else(jpeg_copy, place):
    overwrite(jpeg_copy, field("allocations_at"), np.uint64(place).tobytes())
    assert f"{jpeg_copy}: " in refusal(jpeg_copy)


@pytest.mark.parametrize(("column", "value"), [(0, 2**50), (1, 5), (2, 0)])
def test_an_allocation_that_is_damaged(jpeg_copy, column, value):
    """Of sample 17: its number, its pointer, its size."""
    at = int(header(jpeg_copy)["allocations_at"]) + 24 * 17 + 8 * column
    overwrite(jpeg_copy, at, np.uint64(value).tobytes())
    assert refusal(jpeg_copy) == (
        f"{jpeg_copy}: damaged: 1 of 60 samples have no entry in the allocation table, sample 17 first. "
        "Write it again with `distcls data convert`."
    )


def test_an_allocation_of_another_size(jpeg_copy):
    """Of a JPEG only its bytes tell, and the sidecar's fingerprint does."""
    index = int(np.flatnonzero(BetonDataset(jpeg_copy).samples["mode"] == file_format.JPEG)[3])
    at = int(header(jpeg_copy)["allocations_at"]) + 24 * index + 16
    overwrite(jpeg_copy, at, np.uint64(int(BetonDataset(jpeg_copy).samples["size"][index]) - 1).tobytes())
    assert "belongs to another file" in refusal(jpeg_copy)


def test_a_size_that_no_jpeg_of_so_few_bytes_has(jpeg_copy):
    """It would cost 12 GB of memory."""
    index = int(np.flatnonzero(BetonDataset(jpeg_copy).samples["mode"] == file_format.JPEG)[3])
    size = int(BetonDataset(jpeg_copy).samples["size"][index])
    overwrite(jpeg_copy, record(index) + 1, np.uint16([65500, 65500]).tobytes())
    message = refusal(jpeg_copy)
    assert f"{jpeg_copy}: sample {index} is damaged: {size} bytes at " in message
    assert "do not hold a 65500x65500 image of kind 0. " in message


def test_a_large_image_of_few_bytes_is_no_damage(tmp_path):
    """Of one colour."""
    image = np.zeros((1000, 1000, 3), np.uint8)
    convert(Arrays([image], [0]), tmp_path / "a.beton", quality=1, workers=1)
    assert BetonDataset(tmp_path / "a.beton").samples["size"][0] > 1000 * 1000 / 1024


@pytest.mark.parametrize("seed", range(3))
def test_any_damage_of_the_structure_is_an_error_that_names_the_file(jpeg_copy, seed):
    """A hundred random changes of header, fields, records or allocation table: none opens, none crashes."""
    whole = jpeg_copy.read_bytes()
    generator = np.random.default_rng(seed)
    records = file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize
    table = int(header(jpeg_copy)["allocations_at"])
    for _ in range(100):
        parts = [(0, file_format._HEADER.itemsize), (records, records + 24 * 60), (table, len(whole))]
        first, last = parts[generator.integers(3)]
        at = int(generator.integers(first, last - 8))
        data = bytearray(whole)
        data[at : at + 8] = generator.bytes(int(generator.integers(1, 9))).ljust(8, b"\0")
        if bytes(data) == whole:
            continue
        jpeg_copy.write_bytes(data)
        with pytest.raises(DataError) as caught:
            BetonDataset(jpeg_copy)
        assert str(caught.value).startswith(str(jpeg_copy.parent))


@pytest.mark.parametrize("seed", range(2))
def test_any_damage_of_a_jpeg_decodes_or_is_told_and_never_crashes(jpeg_copy, seed):
    generator = np.random.default_rng(seed)
    dataset = BetonDataset(jpeg_copy)
    jpegs = np.flatnonzero(dataset.samples["mode"] == file_format.JPEG)
    base, told = dataset._files[0].ctypes.data, 0
    for index in jpegs:
        at = int(dataset.samples["address"][index]) - base
        at += int(generator.integers(0, int(dataset.samples["size"][index]) - 40))
        overwrite(jpeg_copy, at, generator.bytes(40))
        told += decode_whole(dataset.samples, index) is None
    assert told > len(jpegs) // 4
