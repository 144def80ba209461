import json

import numpy as np
import pytest
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.dataset import BetonDataset


@pytest.fixture
def foreign(jpeg_images, tmp_path):
    """Written by FFCV itself, as ffcv-imagenet does: raw images, labels 0..2, no sidecar."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    class Pairs:
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return jpeg_images[index], index % 3

    path = tmp_path / "foreign.beton"
    writer = DatasetWriter(str(path), {"image": RGBImageField(write_mode="raw"), "label": IntField()}, num_workers=1)
    writer.from_indexed_dataset(Pairs())
    return path


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


def test_names_that_do_not_fit(foreign):
    assert str(run(foreign, "cat\ndog\n").exception) == (
        f"{foreign}: sample 2 has label 2, expected one of the 2 classes, 0..1 (4 such samples). "
        "Does --class-names belong to this file?"
    )
    assert str(run(foreign, "cat\ndog\ncat\n").exception).endswith("names.txt: class 'cat' is there twice")
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
