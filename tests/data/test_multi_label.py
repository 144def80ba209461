"""Several labels per image: from a list of files to targets, on both kinds of slot."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distcls.data.beton.multi_hot import pack, unpack, words_for
from distcls.data.converting.convert import convert
from distcls.data.converting.sources import open_source
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader, TrainLoader
from tests.data.decoding.test_packed import pack as slots_of_a_gpu

ROWS = [("a.png", "cat;dog"), ("sub/b.png", ""), ("c.png", " bird ; cat"), ("a.png", "fish"), ("c.png", "dog")]
HOT = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]  # bird, cat, dog, fish


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list beside a folder of images of 12 x 10 pixels."""
    for number, name in enumerate(("a.png", "sub/b.png", "c.png")):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), 40 * number, np.uint8)).save(file)
    return write(tmp_path / "list.csv", ["path", "labels"], ROWS)


def write(path: Path, header: list[str], rows: list) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def converted(listed: Path, out: str = "out.beton", **options) -> BetonDataset:
    source = open_source(listed, image_root=listed.parent / "images", **options)
    convert(source, listed.parent / out, workers=1)
    return BetonDataset(listed.parent / out)


@pytest.mark.parametrize("classes", [1, 63, 64, 65, 200])
def test_bits_there_and_back(classes: int) -> None:
    labels = np.random.default_rng(classes).integers(0, 2, (50, classes), np.uint8)
    words = pack(labels)
    assert words.shape == (50, words_for(classes))
    assert words.dtype == np.int64
    assert np.array_equal(unpack(words, classes), labels)
    assert np.array_equal(pack(labels[7]), words[7])


def test_a_list_becomes_multi_hot_labels(listed: Path) -> None:
    data = converted(listed)
    assert data.multi_label
    assert data.class_names == ["bird", "cat", "dog", "fish"]
    assert data.labels.tolist() == HOT
    assert data.class_counts.tolist() == data.sidecar.class_counts == [1, 2, 2, 1]
    assert data.targets(np.array([2, -1])).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert data.targets(np.array([2, -1])).dtype == np.float32


def test_more_classes_than_a_field_has_bits(listed: Path) -> None:
    names = [f"class {number:03d}" for number in range(150)]
    classes = listed.with_name("classes.txt")
    classes.write_text("\n".join(names) + "\n")
    write(listed, ["path", "labels"], [("a.png", "class 000;class 063;class 064;class 149"), ("c.png", "class 127")])
    data = converted(listed, classes=classes)
    assert data.class_names == names
    assert [row.nonzero()[0].tolist() for row in data.labels] == [[0, 63, 64, 149], [127]]


def test_a_list_of_single_labels(listed: Path) -> None:
    write(listed, ["path", "label"], [("a.png", "dog"), ("c.png", "cat"), ("a.png", "dog")])
    data = converted(listed)
    assert not data.multi_label
    assert (data.class_names, data.labels.tolist()) == (["cat", "dog"], [1, 0, 1])


def test_the_fingerprint_covers_the_labels(listed: Path) -> None:
    first = converted(listed).fingerprint
    write(listed, ["path", "labels"], [("a.png", "cat"), *ROWS[1:]])
    assert converted(listed, "other.beton").fingerprint != first


def test_targets_of_batches(listed: Path) -> None:
    data = converted(listed)
    common = {"resolution": 8, "workers": 1, "device": "cpu"}
    with EvalLoader(data, batch_size=4, **common).batches() as batches:
        first, last = batches
    assert first.target.dtype == torch.float32
    assert first.target.tolist() == HOT[:4]
    assert last.count == 1
    assert last.target.tolist() == [HOT[4], *[[0, 0, 0, 0]] * 3]
    loader = TrainLoader(data, transforms=[], global_batch_size=5, seed=0, **common)
    with loader.stream(0, 1) as batches:
        [batch] = batches
    assert batch.target.tolist() == [HOT[index] for index in batch.index.tolist()]


def test_targets_that_travel_to_a_gpu_with_their_images(listed: Path) -> None:
    data = converted(listed)
    loader = EvalLoader(data, batch_size=3, resolution=8, workers=2, device="cpu")
    slots_of_a_gpu(loader)
    with loader.batches() as batches:
        found = [(batch.target.tolist(), batch.target.dtype) for batch in batches]
    assert found == [(HOT[:3], torch.float32), ([*HOT[3:], [0, 0, 0, 0]], torch.float32)]


def test_shards_with_one_and_with_several_labels_do_not_mix(listed: Path) -> None:
    several = converted(listed).paths[0]
    rows = [("a.png", name) for name in ("bird", "cat", "dog", "fish")]
    one = converted(write(listed, ["path", "label"], rows), "one.beton").paths[0]
    for paths in ([one, several], [several, one]):
        with pytest.raises(DataError) as caught:
            BetonDataset(paths)
        assert str(caught.value) == (
            f"{several} holds any number of labels per image, {one} one: they cannot be shards of one data set"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,class\n",
            "{list}:1: got the header 'file,class', expected 'path,labels' (any number of labels, separated by semicolons) or 'path,label'",
        ),
        ("path,labels\n", "{list}: lists no images"),
        ("path,labels\na.png,cat,dog\n", "{list}:2: got 'a.png,cat,dog', expected path,labels"),
        ("path,label\n\na.png,\n", "{list}:3: got 'a.png,', expected path,label"),
        ("path,labels\na.png,cat;dgo\n", "{list}:2: no class 'dgo' in {classes}. Did you mean 'dog'?"),
    ],
)
def test_mistakes_in_a_list(listed: Path, text: str, message: str) -> None:
    listed.write_text(text)
    classes = listed.with_name("classes.txt")
    classes.write_text("cat\ndog\n")
    with pytest.raises(DataError) as caught:
        open_source(listed, classes=classes)
    assert str(caught.value) == message.format(list=listed, classes=classes)


def test_options_of_a_list_for_a_folder(listed: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_source(listed.parent / "images", image_root=listed.parent)
    assert str(caught.value) == (
        f"--image-root: goes with a list of images, --source-type csv or list, but {listed.parent / 'images'} is read as folder"
    )


def test_a_missing_image_is_named(listed: Path) -> None:
    write(listed, ["path", "labels"], [("nothing.png", "cat")])
    with pytest.raises(DataError, match=r"images/nothing\.png: no such file: the list.s paths start from "):
        converted(listed)
