import json

import numpy as np
import pytest

from distcls.data.beton import file_format
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from tests.data.conftest import Arrays


def refusal(*paths):
    with pytest.raises(DataError) as caught:
        BetonDataset(paths)
    return str(caught.value)


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def header(path):
    return np.fromfile(path, file_format._HEADER, 1)[0]


def test_the_table_holds_what_was_written(raw, raw_images):
    assert len(raw) == 1000
    assert raw.labels.tolist() == [i % 10 for i in range(1000)]
    assert raw.num_classes == 10
    assert raw.samples.itemsize == 24
    assert (raw.samples["size"] == 28 * 28 * 3).all()
    expected = raw_images.reshape(-1, 3) / 255
    assert raw.mean == pytest.approx(expected.mean(0), abs=1e-5)
    assert raw.std == pytest.approx(expected.std(0), abs=1e-5)


def test_shards_are_one_data_set(raw, tmp_path):
    images = np.full((50, 28, 28, 3), 200, np.uint8)
    convert(Arrays(list(images), [3] * 50), tmp_path / "b.beton", workers=1)
    both = BetonDataset([raw.paths[0], tmp_path / "b.beton"])
    assert len(both) == 1050
    assert both.labels[-50:].tolist() == [3] * 50
    assert both.place_of(999) == f"{raw.paths[0]}: sample 999"
    assert both.place_of(1000) == f"{tmp_path / 'b.beton'}: sample 0"
    assert both.mean == pytest.approx((np.array(raw.mean) * 1000 + 50 * 200 / 255) / 1050, abs=1e-6)
    one_colour = (200 / 255) ** 2 + 1 / 255**2  # whose standard deviation is one grey level, see sidecar.deviation
    square = (np.array(raw.std) ** 2 + np.array(raw.mean) ** 2) * 1000 + 50 * one_colour
    assert both.std == pytest.approx(np.sqrt(square / 1050 - np.array(both.mean) ** 2), abs=1e-6)
    assert both.fingerprint != raw.fingerprint


def test_shards_with_other_classes_are_refused(raw_beton, jpeg_beton):
    assert refusal(raw_beton, jpeg_beton) == (
        f"{jpeg_beton}: its 3 classes are not the 10 of {raw_beton} (one list is longer): shards of one data set need "
        "the same classes. Convert them from folders that hold the same classes."
    )


def test_missing(tmp_path):
    path = tmp_path / "none.beton"
    assert refusal(path) == (
        f"{path}: no such file. Write it from your images with `distcls data convert SOURCE {path}` "
        "(`distcls data convert --help` lists the sources)."
    )


def test_zero_bytes(raw_copy):
    raw_copy.write_bytes(b"")
    assert refusal(raw_copy) == (
        f"{raw_copy}: got 0 bytes, expected an FFCV .beton file. Write it again with `distcls data convert`."
    )


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(200), b"just a text file, no more. " * 9])
def test_foreign(raw_copy, content):
    raw_copy.write_bytes(content)
    assert f"{raw_copy}: not an FFCV .beton file: got version " in refusal(raw_copy)


def test_unfinished(raw_copy):
    overwrite(raw_copy, file_format._HEADER.fields["allocations_at"][1], bytes(8))
    assert refusal(raw_copy) == (
        f"{raw_copy}: unfinished: it was never closed by its writer (no allocation table). "
        "Write it again with `distcls data convert`."
    )


@pytest.mark.parametrize("missing", [1, 24, 24 * 500, 24 * 1000, 1_000_000])
def test_truncated(raw_copy, missing):
    size = raw_copy.stat().st_size
    with raw_copy.open("r+b") as file:
        file.truncate(size - missing)
    assert refusal(raw_copy) == (
        f"{raw_copy}: truncated: got {size - missing} bytes, expected at least {size} for 1000 samples. "
        "Copy it again, or write it again with `distcls data convert`."
    )


def test_truncated_in_the_labels(raw_copy):
    with raw_copy.open("r+b") as file:
        file.truncate(5000)
    assert f"{raw_copy}: truncated: got 5000 bytes, expected 2610" in refusal(raw_copy)


def test_other_fields(raw_copy):
    overwrite(raw_copy, file_format._HEADER.itemsize, b"\x04")
    assert refusal(raw_copy).startswith(
        f"{raw_copy}: its fields are of FFCV types [4, 1], expected an RGB image (2) and an int"
    )


def test_a_pointer_out_of_the_file(raw_copy):
    first = file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize
    overwrite(raw_copy, first + 24 * 17 + 5, np.uint64(2**60).tobytes())
    overwrite(raw_copy, int(header(raw_copy)["allocations_at"]) + 8, b"")
    assert refusal(raw_copy) == (
        f"{raw_copy}: damaged: 1 of 1000 samples have no entry in the allocation table, sample 17 first. "
        "Write it again with `distcls data convert`."
    )


def test_a_size_that_does_not_fit(raw_copy):
    first = file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize
    overwrite(raw_copy, first + 24 * 17 + 1, np.uint16(29).tobytes())
    assert f"{raw_copy}: sample 17 is damaged: 2352 bytes at " in refusal(raw_copy)
    assert "do not hold a 29x28 image of kind 1" in refusal(raw_copy)


@pytest.mark.parametrize("label", [10, -1, 2**40])
def test_a_label_out_of_range(raw_copy, label):
    first = file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize
    overwrite(raw_copy, first + 24 * 17 + 16, np.int64(label).tobytes())
    reseal(raw_copy)
    assert refusal(raw_copy) == (
        f"{raw_copy}: sample 17 has a label outside of 0..9, the 10 classes of {raw_copy.with_suffix('.json')} (1 such "
        "samples). Write both again with `distcls data convert`."
    )


def reseal(path):
    """Make the sidecar fit a file that was changed."""
    from distcls.data.beton.sidecar import fingerprint_of

    file, table = file_format.read_samples(path)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["fingerprint"] = fingerprint_of(file, int(table["address"].min()) - file.ctypes.data)
    path.with_suffix(".json").write_text(json.dumps(sidecar))


def test_a_missing_sidecar(raw_copy):
    raw_copy.with_suffix(".json").unlink()
    assert refusal(raw_copy) == (
        f"{raw_copy.with_suffix('.json')}: no such file: the class names and statistics of {raw_copy} are in it. "
        f"Copy it from where copy.beton came from; for a file of ffcv-imagenet write it with `distcls data describe {raw_copy} "
        "--class-names FILE`; or write both again with `distcls data convert`."
    )


def test_a_sidecar_that_is_none(raw_copy):
    raw_copy.with_suffix(".json").write_text("{")
    assert f"{raw_copy.with_suffix('.json')}: not JSON (" in refusal(raw_copy)
    raw_copy.with_suffix(".json").write_text('{"a": 1}')
    assert f"{raw_copy.with_suffix('.json')}: not the sidecar of {raw_copy}: fingerprint: Field required." in refusal(
        raw_copy
    )


def test_a_swapped_sidecar(raw_copy, tmp_path):
    """Of a data set with as many samples, and the same labels and sizes."""
    images = list(np.random.default_rng(5).integers(0, 256, (1000, 28, 28, 3), np.uint8))
    convert(Arrays(images, [i % 10 for i in range(1000)]), tmp_path / "other.beton", workers=2)
    (tmp_path / "other.json").rename(raw_copy.with_suffix(".json"))
    message = refusal(raw_copy)
    assert message.startswith(
        f"{raw_copy.with_suffix('.json')}: belongs to another file: it describes 1000 samples with"
    )
    assert message.endswith("Copy the two files together, or write both again with `distcls data convert`.")


def test_no_path():
    assert refusal() == "a data set needs one .beton file at least, got an empty list of paths"
