import errno
import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.class_names import read_class_names
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_whole
from distcls.data.errors import DataError
from distcls.data.inspecting.describe import describe


def written_by_ffcv(path, images, workers=1, **options):
    """As ffcv-imagenet does: labels 0..2, no sidecar."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    class Pairs:
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index], index % 3

    fields = {"image": RGBImageField(**options), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=workers).from_indexed_dataset(Pairs())
    return path


@pytest.fixture
def foreign(jpeg_images, tmp_path):
    return written_by_ffcv(tmp_path / "foreign.beton", jpeg_images[:12], write_mode="raw")


def test_a_file_that_is_shortened_while_it_is_read_gets_no_sidecar(foreign):
    size = foreign.stat().st_size
    with pytest.raises(DataError) as caught:
        describe(foreign, ["a", "b", "c"], workers=1, progress=lambda done: os.truncate(foreign, 2**21))
    assert str(caught.value) == (
        f"{foreign}: went from {size} to {2**21} bytes while it was read: try again when nobody writes to it"
    )
    assert not foreign.with_suffix(".json").exists()


def run(path, names):
    file = path.with_name("names" + (".json" if isinstance(names, list) else ".txt"))
    file.write_text(json.dumps(names) if isinstance(names, list) else names)
    return CliRunner().invoke(app, ["describe", str(path), "--class-names", str(file), "--workers", "2"])


@pytest.mark.parametrize("names", ["cat\ndog\nbird, all kinds\n", ["cat", "dog", "bird, all kinds"]])
def test_a_foreign_beton_becomes_a_data_set(foreign, jpeg_images, names):
    result = run(foreign, names)
    assert result.exit_code == 0, result.exception
    assert result.stdout == f"{foreign.with_suffix('.json')}: 12 images, 3 classes\n"
    dataset = BetonDataset(foreign)
    assert dataset.class_names == ["cat", "dog", "bird, all kinds"]
    assert dataset.sidecar.class_counts == [4, 4, 4]
    flat = [image.reshape(-1, 3) / 255 for image in jpeg_images[:12]]
    mean = np.mean([image.mean(0) for image in flat], 0)
    assert dataset.mean == pytest.approx(mean, abs=1e-9)
    assert dataset.std == pytest.approx(np.sqrt(np.mean([(i**2).mean(0) for i in flat], 0) - mean**2), abs=1e-9)
    assert CliRunner().invoke(app, ["info", str(foreign)]).exit_code == 0

    again = run(foreign, names)
    assert str(again.exception) == f"{foreign.with_suffix('.json')}: exists already: move it away to write it anew"


@pytest.mark.parametrize(
    "options",
    [
        {"write_mode": "jpg", "jpeg_quality": 80},
        {"write_mode": "smart", "smart_threshold": 15000},
        {"write_mode": "proportion", "compress_probability": 0.5, "max_resolution": 50, "jpeg_quality": 90},
    ],
    ids=lambda options: options["write_mode"],
)
def test_every_way_that_ffcv_imagenet_writes(jpeg_images, tmp_path, options):
    """Also by two processes, which lay the images in another order than the records."""
    path = written_by_ffcv(tmp_path / "foreign.beton", jpeg_images, workers=2, **options)
    assert run(path, "cat\ndog\nbird\n").exit_code == 0
    dataset = BetonDataset(path)
    assert dataset.labels.tolist() == [index % 3 for index in range(60)]
    assert dataset.sidecar.jpeg_samples > 0
    checked = CliRunner().invoke(app, ["check", str(path)])
    assert checked.exit_code == 0, checked.stdout
    for index, image in enumerate(jpeg_images):
        stored = decode_whole(dataset.samples, index)
        side = min(max(image.shape), options.get("max_resolution", 999))
        assert side - 1 <= max(stored.shape) <= side  # FFCV cuts 49.99 to 49
        assert np.abs(stored.mean((0, 1)) - image.mean((0, 1))).max() < 12


@pytest.mark.parametrize(
    ("name", "text"), [("names.txt", "cat\r\nx\u2028y\r\n\r\ndog\r\n"), ("names.json", '["cat", "x\u2028y", "dog"]')]
)
def test_names_after_a_mark(tmp_path, name, text):
    (tmp_path / name).write_bytes(f"\ufeff{text}".encode())
    assert read_class_names(tmp_path / name) == ["cat", "x\u2028y", "dog"]


def test_a_full_disk_leaves_no_half_sidecar(foreign, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert run(foreign, "cat\ndog\nbird\n").exception.errno == errno.ENOSPC
    assert sorted(path.name for path in foreign.parent.iterdir()) == ["foreign.beton", "names.txt"]


def test_names_that_do_not_fit(foreign):
    assert str(run(foreign, "cat\ndog\n").exception) == (
        f"{foreign}: sample 2 has label 2, expected one of the 2 classes, 0..1 (4 such samples). "
        "Does --class-names belong to this file?"
    )
    told = "names.txt: class 'cat' is there 2 times: give the others other names, say 'cat 2'"
    assert str(run(foreign, "cat\ndog\ncat\n").exception).endswith(told)
    assert str(run(foreign, [1, 2, 3]).exception).endswith("expected a class name a line, or a JSON list of names")
    assert not foreign.with_suffix(".json").exists()


def test_several_labels_per_image_whose_sidecar_is_lost(several):
    before = BetonDataset(several)
    names = "\n".join(before.class_names)
    several.with_suffix(".json").unlink()
    file = several.with_name("names.txt")
    file.write_text(names)
    arguments = ["describe", str(several), "--class-names", str(file)]
    assert "has label" in str(CliRunner().invoke(app, arguments).exception)
    assert CliRunner().invoke(app, [*arguments, "--multi-label"]).exit_code == 0
    after = BetonDataset(several)
    assert after.labels.tolist() == before.labels.tolist()
    assert after.fingerprint == before.fingerprint
    for name in ("class_counts", "multi_label", "sha256", "sizes"):
        assert getattr(after.sidecar, name) == getattr(before.sidecar, name)

    several.with_suffix(".json").unlink()
    file.write_text("one\ntwo\n")
    assert str(CliRunner().invoke(app, [*arguments, "--multi-label"]).exception) == (
        f"{several}: sample 1 has a class beyond the 2 of --class-names (2 such samples). Does --class-names belong to "
        "this file, and does it hold several labels per image?"
    )
    file.write_text("\n".join(f"class {number}" for number in range(65)))
    assert str(CliRunner().invoke(app, [*arguments, "--multi-label"]).exception) == (
        f"{several}: holds 1 int fields, expected 2 for one bit of each of 65 classes. Does --class-names belong to "
        "this file?"
    )
