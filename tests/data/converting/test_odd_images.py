"""Images and lists that are not what most are: the right pixels and classes, or an error that says what to do."""

import os

import numpy as np
import pytest
from PIL import Image

from distcls.data.class_names import read_class_names
from distcls.data.converting.convert import convert
from distcls.data.converting.sources import open_source
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_whole
from distcls.data.errors import DataError


def converted(folder, **options):
    out = folder.parent / "out.beton"
    convert(open_source(folder), out, workers=1, write_mode="raw", **options)
    return BetonDataset(out)


def only_pixels(folder):
    dataset = converted(folder)  # the file stays mapped as long as it lives
    return decode_whole(dataset.samples, 0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images/größe 猫").mkdir(parents=True)
    return tmp_path / "images"


def place(folder, name):
    return folder / "größe 猫" / name


@pytest.mark.parametrize("name", ["grey 16.png", "grey 16.tif", "grey 16.pgm"])
def test_sixteen_bits_a_channel_become_eight(folder, name):
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(values).save(place(folder, name))
    assert (only_pixels(folder) == (values >> 8)[..., None]).all()


def test_floats_are_refused_rather_than_black(folder):
    Image.fromarray(np.full((6, 8), 0.5, np.float32)).save(place(folder, "float.tif"))
    with pytest.raises(DataError) as caught:
        converted(folder)
    assert str(caught.value) == (
        f"{place(folder, 'float.tif')}: cannot be read as an image: its pixels are float32 numbers, expected 8 or 16 "
        "bits a channel. Mend it or move it away."
    )


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("P", "a.png"), ("RGBA", "a.png"), ("LA", "a.png")])
def test_other_colours_become_rgb(folder, mode, name):
    image = Image.new("RGB", (8, 6), (200, 40, 40))
    (image.quantize() if mode == "P" else image.convert(mode)).save(place(folder, name))
    expected = 88 if mode == "LA" else (200, 40, 40)
    assert np.abs(only_pixels(folder).astype(int) - expected).max() < 4


def test_images_of_one_colour_can_be_normalised(folder):
    """Their variance is none, or a little less by rounding."""
    Image.new("RGB", (8, 6), (200, 40, 41)).save(place(folder, "a.png"))
    assert converted(folder).std == pytest.approx([1 / 255] * 3, rel=1e-3)


def test_of_an_animation_the_first_picture_is_taken(folder):
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    first.save(place(folder, "moving.gif"), save_all=True, append_images=[second])
    assert (only_pixels(folder) == (255, 0, 0)).all()


def test_images_lie_as_they_are_stored(folder):
    """As in torchvision and FFCV: EXIF's orientation is not applied."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 6)).save(place(folder, "turned.jpg"), exif=exif)
    assert only_pixels(folder).shape == (6, 8, 3)


def test_a_side_that_the_format_cannot_hold(folder):
    Image.new("RGB", (70_000, 20)).save(place(folder, "long.png"))
    with pytest.raises(DataError) as caught:
        converted(folder)
    assert str(caught.value) == (
        f"{place(folder, 'long.png')}: got 70000x20 pixels, expected sides of 65535 at most: use --max-resolution"
    )
    assert converted(folder, max_resolution=7000).samples["width"].tolist() == [7000]


@pytest.mark.parametrize(
    ("size", "options", "text"),
    [
        (
            (65_501, 2),
            {"write_mode": "jpg"},
            "got 65501x2 pixels, expected sides of 65500 at most: use --max-resolution",
        ),
        (
            (900, 3),
            {"write_mode": "raw", "max_resolution": 299},
            "got 900x3 pixels, whose shorter side --max-resolution 299 shrinks to nothing: give more",
        ),
    ],
)
def test_what_cannot_be_stored_is_told_or_skipped(folder, tmp_path, size, options, text):
    Image.new("RGB", size).save(place(folder, "b.png"))
    for name in ("a.png", "c.png"):
        Image.new("RGB", (8, 6), (0, 0, 200)).save(place(folder, name))
    source, out = open_source(folder), tmp_path / "out.beton"
    with pytest.raises(DataError) as caught:
        convert(source, out, workers=1, **options)
    assert str(caught.value) == f"{place(folder, 'b.png')}: {text}"
    sidecar = convert(source, out, workers=1, on_error="skip", **options)
    assert (sidecar.samples, sidecar.write["skipped"], sidecar.sizes.width) == (2, 1, [8, 8, 8])
    assert sidecar.mean == pytest.approx([0, 0, 200 / 255], abs=1e-6)
    assert len(BetonDataset(out)) == 2


def test_a_max_resolution_beyond_any_page(folder):
    """A page for such an image would be of 2^33 bytes: the header has 32 bits for that, and the file two pages."""
    Image.new("RGB", (8, 6), (200, 40, 40)).save(place(folder, "a.png"))
    dataset = converted(folder, max_resolution=40_000)
    assert (dataset.samples["width"].tolist(), dataset.sidecar.bytes) == ([8], 2 * 2**21 + 24)


def test_links_are_followed_once(folder):
    Image.new("RGB", (8, 6)).save(place(folder, "a.png"))
    os.symlink("..", place(folder, "up"))
    os.symlink("a.png", place(folder, "b.png"))
    assert len(converted(folder)) == 2


def listed(tmp_path, content, name="list.csv"):
    Image.new("RGB", (8, 6)).save(tmp_path / "ä 1.png")
    (tmp_path / name).write_bytes(content)
    return open_source(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        "path,label\nä 1.png,cat\n",
        "\ufeffpath,label\r\nä 1.png,cat\r\n",
        'path, label\n"ä 1.png", cat \n\n',
    ],
)
def test_marks_line_ends_and_spaces_change_nothing(tmp_path, content):
    source = listed(tmp_path, content.encode())
    assert source.class_names == ["cat"]
    assert source[0][1] == 0


@pytest.mark.parametrize(("encoding", "byte", "at"), [("latin-1", "0xe4", 11), ("utf-16", "0xff", 0)])
def test_a_list_that_is_not_utf_8(tmp_path, encoding, byte, at):
    with pytest.raises(DataError) as caught:
        listed(tmp_path, "path,label\nä 1.png,cat\n".encode(encoding))
    assert str(caught.value) == (
        f"{tmp_path / 'list.csv'}: is not UTF-8 text: got byte {byte} at {at}. Save it as UTF-8, e.g. "
        "`iconv -f latin1 -t utf-8 list.csv`"
    )


def test_names_of_classes_after_a_mark(tmp_path):
    (tmp_path / "classes.txt").write_bytes("\ufeffcat\r\ndog\r\n".encode())
    assert read_class_names(tmp_path / "classes.txt") == ["cat", "dog"]


def test_a_class_number_that_is_none(tmp_path):
    with pytest.raises(DataError) as caught:
        listed(tmp_path, "ä 1.png 0\nä 1.png 20231123\n".encode(), "list.txt")
    assert str(caught.value) == (
        f"{tmp_path / 'list.txt'}:2: got class number 20231123, expected one below 1000000: classes count from 0"
    )
