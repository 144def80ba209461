import numpy as np
import pytest
from PIL import Image

from distcls.data.converting.convert import convert
from distcls.data.converting.sources import open_source
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError


@pytest.fixture
def listed(tmp_path):
    for name in ("a.png", "sub/a b.png"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    path = tmp_path / "train.txt"
    path.write_text("a.png 2\n\nsub/a b.png 0\na.png 2\n")
    return path


def test_paths_with_class_numbers(listed, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\ndog\nbird\n")
    source = open_source(listed, image_root=tmp_path / "images", classes=classes)
    convert(source, tmp_path / "out.beton", workers=1)
    data = BetonDataset(tmp_path / "out.beton")
    assert (data.class_names, data.labels.tolist()) == (["cat", "dog", "bird"], [2, 0, 2])
    assert open_source(listed, image_root=tmp_path / "images").class_names == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat 0\ngreat white 1\nbird 2\n", ["cat", "great white", "bird"]),  # Awesome-Backbones' annotations.txt
        ("area 51\nroute 66\ncatch 22\n", ["area 51", "route 66", "catch 22"]),
        ("class 0\nclass 1\nclass 2\n", ["class 0", "class 1", "class 2"]),
    ],
)
def test_classes_with_their_own_numbers(listed, tmp_path, text, names):
    classes = tmp_path / "annotations.txt"
    classes.write_text(text)
    assert open_source(listed, image_root=tmp_path / "images", classes=classes).class_names == names


def test_the_fingerprint_covers_the_labels(listed, tmp_path):
    before = open_source(listed, image_root=tmp_path / "images").fingerprint()
    listed.write_text("a.png 2\nsub/a b.png 1\na.png 2\n")
    assert open_source(listed, image_root=tmp_path / "images").fingerprint() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\n", "{list}:1: got 'a.png', expected the path of an image and its class number"),
        ("a.png 1\nb.png x\n", "{list}:2: got 'b.png x', expected the path of an image and its class number"),
        ("\n", "{list}: lists no images"),
        ("a.png 7\n", "{list}: got class number 7, expected 0..1, the lines of {classes}"),
    ],
)
def test_mistakes(listed, tmp_path, text, message):
    listed.write_text(text)
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\ndog\n")
    with pytest.raises(DataError) as caught:
        open_source(listed, classes=classes)
    assert str(caught.value) == message.format(list=listed, classes=classes)
