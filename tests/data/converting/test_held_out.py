"""Images that nobody has sorted into train and val: one folder, two files."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.converting.held_out import part_of
from distcls.data.converting.shards import convert_shards
from distcls.data.converting.sources import open_source
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError

SIZES = {"cat": 20, "dog": 8, "eel": 2, "fox": 1}


@pytest.fixture
def folder(tmp_path):
    for name, count in SIZES.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            image = np.full((4, 4, 3), len(list(tmp_path.rglob("*.png"))), np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def names(folder, part, share=0.25):
    images = part_of(open_source(folder), part, share)
    return {images.name_of(index).removeprefix(f"{folder}/") for index in range(len(images))}


def test_the_sidecar_says_of_what_it_is_a_part_of_a_part(folder, tmp_path):
    part = part_of(open_source(folder), "train", 0.2)
    sidecars = convert_shards(part, tmp_path / "out.beton", shards=2, shuffle=True, workers=1)
    assert {sidecar.source["kind"] for sidecar in sidecars} == {"FolderSource"}
    assert sum(sidecar.samples for sidecar in sidecars) == len(part)


def test_each_image_is_in_one_part_and_each_class_in_both(folder):
    train, val = names(folder, "train"), names(folder, "val")
    assert not train & val
    assert len(train | val) == sum(SIZES.values())
    held = {name: sum(image.startswith(name) for image in val) for name in SIZES}
    assert held == {"cat": 5, "dog": 2, "eel": 1, "fox": 0}


def test_the_choice_is_the_paths_and_new_images_hardly_move_it(folder, tmp_path):
    before = names(folder, "val")
    folder.rename(tmp_path / "moved")
    assert names(tmp_path / "moved", "val") == before
    for number in range(20, 24):
        Image.new("RGB", (4, 4)).save(tmp_path / "moved" / "cat" / f"{number}.png")
    after = names(tmp_path / "moved", "val")
    assert len(after) == len(before) + 1
    assert len(before - after) <= 3  # four new ones can take no more places than they are, less the one that is added


def test_a_list_with_several_labels_an_image(folder, tmp_path):
    lines = [f"cat/{number}.png,a;b" for number in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["path,labels", *lines]))
    source = open_source(tmp_path / "list.csv", image_root=folder)
    assert (len(part_of(source, "train", 0.2)), len(part_of(source, "val", 0.2))) == (8, 2)


def test_an_image_that_a_list_names_several_times_is_in_one_part(folder, tmp_path):
    """As lists do that were made of boxes: a line for each object, in several classes too."""
    files = sorted(f"{path.parent.name}/{path.name}" for path in folder.rglob("*.png"))
    lines = [f"{file} {number}" for number, repeats in enumerate((1, 3, 2)) for file in files[number::2] * repeats]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for share in (0.1, 0.3, 0.5):
        parts = [
            part_of(open_source(tmp_path / "list.txt", image_root=folder), part, share) for part in ("train", "val")
        ]
        train, val = ({part.name_of(index) for index in range(len(part))} for part in parts)
        assert train
        assert val
        assert not train & val
        assert sum(map(len, parts)) == len(lines)


def test_the_command(folder, tmp_path):
    for part, count in (("train", 23), ("val", 8)):
        out = tmp_path / f"{part}.beton"
        said = CliRunner().invoke(
            app, ["convert", str(folder), str(out), "--split", part, "--val-share", "0.25"], catch_exceptions=False
        )
        assert said.exit_code == 0
        assert f"{count} images in 4 classes" in said.output
        dataset = BetonDataset(out)
        assert len(dataset) == count
        assert dataset.sidecar.class_names == list(SIZES)
        assert dataset.sidecar.source["path"] == f"{folder} --split {part} --val-share 0.25"


@pytest.mark.parametrize(
    ("part", "share", "expected"),
    [
        (None, 0.2, "--val-share: got --split None, expected the part to write: --split train or --split val"),
        ("test", 0.2, "--val-share: got --split test, expected the part to write: --split train or --split val"),
        ("val", 20, "--val-share: got 20, expected a share between 0 and 1, for example 0.2"),
    ],
)
def test_refused(folder, part, share, expected):
    with pytest.raises(DataError) as caught:
        part_of(open_source(folder), part, share)
    assert str(caught.value) == expected


def test_refused_where_nothing_can_be_held_out(folder, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\ncat/0.png,a\n")
    with pytest.raises(DataError, match=r"--val-share 0\.2: leaves nothing for --split val: no class has two images"):
        part_of(open_source(tmp_path / "list.csv", image_root=folder), "val", 0.2)
