"""Folders and lists with what is no image, or has no name that can be written: an error in a line, never a traceback."""

import io
import json
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.converting.held_out import part_of
from distcls.data.converting.sources import open_source
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """An image a/ok.png; what a test puts beside it is to be refused, or skipped."""
    (tmp_path / "images/a").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "images/a/ok.png")
    return tmp_path / "images"


def convert(source, *options):
    out = source.parent / "out.beton"
    return out, CliRunner().invoke(app, ["convert", str(source), str(out), "--workers", "1", *options])


def refusal(source, *options):
    _, result = convert(source, *options)
    assert isinstance(result.exception, DataError), result.exception
    return str(result.exception)


def bomb(kind):
    """A file of a few hundred bytes whose header declares far more pixels than Pillow reads."""
    file = io.BytesIO()
    Image.new("P" if kind == "gif" else "RGB", (64, 64)).save(file, kind)
    data = bytearray(file.getvalue())
    if kind == "png":
        data[16:24] = struct.pack(">II", 60000, 60000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", 65535, 65535)
    elif kind == "jpeg":
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    else:
        (table,) = struct.unpack("<I", data[4:8])
        for at in range(table + 2, table + 2 + 12 * data[table], 12):
            if struct.unpack("<H", data[at : at + 2])[0] in (256, 257):  # width and height
                data[at + 8 : at + 12] = struct.pack("<I", 60000)
    return data


@pytest.mark.parametrize("kind", ["png", "gif", "jpeg", "tiff"])
def test_an_image_that_declares_a_huge_size(folder, kind):
    (folder / "a/bomb.png").write_bytes(bomb(kind))
    message = refusal(folder)
    assert message.startswith(f"{folder}/a/bomb.png: cannot be read as an image: ")
    assert message.endswith(". Mend it or move it away.")
    out, result = convert(folder, "--on-error", "skip")
    assert result.exit_code == 0
    assert len(BetonDataset(out)) == 1


def test_the_message_of_a_huge_size(folder):
    (folder / "a/bomb.png").write_bytes(bomb("png"))
    assert refusal(folder) == (
        f"{folder}/a/bomb.png: cannot be read as an image: more than 178,956,970 pixels. Mend it or move it away."
    )


def test_merely_large_images_are_no_news(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with warnings.catch_warnings(record=True) as told:
        assert convert(folder)[1].exit_code == 0
    assert not [one for one in told if "decompression bomb" in str(one.message)]


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "a/pipe.jpg")
    assert refusal(folder) == (
        f"{folder}/a/pipe.jpg: cannot be read as an image: is not a regular file. Mend it or move it away."
    )


@pytest.mark.parametrize("target", ["nowhere.jpg", "link.jpg"])
def test_links_to_nothing_and_to_themselves(folder, target):
    os.symlink(target, folder / "a/link.jpg")
    assert refusal(folder) == f"{folder}/a/link.jpg: no such file"
    assert convert(folder, "--on-error", "skip")[1].exit_code == 0


def beside(folder, name):
    """A path whose name holds bytes that are not UTF-8."""
    return os.fsencode(folder) + b"/" + name


def test_files_with_names_that_are_not_utf_8(folder):
    os.rename(folder / "a/ok.png", beside(folder, b"a/k\xe4se.png"))
    Image.new("RGB", (8, 6), "red").save(folder / "a/2.png")
    assert convert(folder)[1].exit_code == 0
    assert [len(part_of(open_source(folder), part, 0.5)) for part in ("train", "val")] == [1, 1]
    with open(beside(folder, b"a/br\xf6d.png"), "w") as file:
        file.write("no image")
    assert refusal(folder).startswith(f"{folder}/a/br\\xf6d.png: cannot be read as an image: ")
    out, result = convert(folder, "--on-error", "skip")
    assert result.exit_code == 0
    listed = json.loads(out.with_suffix(".report.json").read_text())
    assert [entry["image"] for entry in listed["skipped"]] == [f"{folder}/a/br\\xf6d.png"]


def test_a_class_with_a_name_that_is_not_utf_8(folder):
    os.mkdir(beside(folder, b"k\xe4se"))
    assert refusal(folder) == (
        f"{folder}/k\\xe4se: its name is not UTF-8, expected a class's name. Rename it, e.g. "
        f"`convmv -r -f latin1 -t utf-8 --notest {folder}`"
    )


def listed(folder, name, text):
    (folder / name).write_bytes(text.encode())
    return folder / name


def test_lines_of_a_million_entries(folder):
    path = listed(folder, "list.csv", "path,label\n" + "a/ok.png," * 1_000_000)
    message = refusal(path)
    assert message.startswith(f"{path}:2: got 'a/ok.png,a/ok.png,")
    assert message.endswith("...', expected path,label")
    assert len(message) < 250 + len(str(path))
    path = listed(folder, "list.txt", "a" * 1_000_000)
    assert len(refusal(path)) < 250 + len(str(path))
    path = listed(folder, "list.txt", "a/ok.png " + "9" * 6000)
    assert refusal(path) == (
        f"{path}:1: got class number {'9' * 77}..., expected one below 1000000: classes count from 0"
    )


def test_a_quote_that_is_left_open(folder):
    path = listed(folder, "list.csv", 'path,label\n"a/ok.png,x\n' + "b,c\n" * 50_000)
    assert refusal(path) == (
        f"{path}: is no list of comma-separated values: field larger than field limit (131072). Is a quote left open?"
    )


@pytest.mark.parametrize("text", ["a/ok.png\t3\n", "a/ok.png   3\r\n", "a/ok.png 3\r", "  a/ok.png 3  "])
def test_what_may_lie_between_path_and_class_number(folder, text):
    source = open_source(listed(folder, "list.txt", text))
    assert source.files == [("a/ok.png", 3)]


def test_a_name_may_hold_what_ends_a_line_in_unicode(folder):
    os.rename(folder / "a/ok.png", folder / "a/o\u2028k.png")
    assert convert(listed(folder, "list.txt", "a/o\u2028k.png 0\n"))[1].exit_code == 0


def test_a_list_of_another_folders_files(folder):
    """As Awesome-Backbones' lists, whose paths start where its scripts are run."""
    path = listed(folder, "train.txt", "datasets/a/ok.png 0\n")
    assert refusal(path) == (
        f"{folder}/datasets/a/ok.png: no such file: the list's paths start from {folder}, or from --image-root"
    )
    (folder.parent / "datasets").symlink_to(folder)
    assert convert(path, "--image-root", str(folder.parent))[1].exit_code == 0


def test_a_file_in_a_folders_place_and_the_other_way_round(folder):
    expected = (
        "expected a folder of images, or a list named .csv or .txt (or of any name, with --source-type csv or list)"
    )
    path = listed(folder, "list.tsv", "a/ok.png\t0\n")
    assert refusal(path) == f"{path}: is a file, but read as folder: {expected}"
    assert convert(path, "--source-type", "list")[1].exit_code == 0
    assert refusal(folder, "--source-type", "csv") == f"{folder}: is a folder, but read as csv: {expected}"


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_what_the_folder_of_validation_is_called(folder, name):
    (folder / "train").mkdir()
    (folder / "a").rename(folder / "train/a")
    (folder / name / "a").mkdir(parents=True)
    Image.fromarray(np.full((5, 7, 3), 9, np.uint8)).save(folder / name / "a/1.png")
    assert refusal(folder) == (
        f"{folder}: holds the folders {', '.join(sorted(('train', name)))}, not classes: add --split train, without "
        "--val-share"
    )
    out, result = convert(folder, "--split", "val")
    assert result.exit_code == 0
    assert BetonDataset(out).sidecar.sizes.width == [7, 7, 7]


def test_a_folder_in_the_targets_place_is_found_before_the_work(folder):
    (folder.parent / "out.beton").mkdir()
    assert refusal(folder) == f"{folder.parent}/out.beton: is a folder, expected the name of the file to write"


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ("DatasetFolder", "DatasetFolder.__init__() missing 1 required positional argument: 'loader'"),
        ("SEMEION", "Dataset not found or corrupted. You can use download=True to download it"),
        ("EMNIST", "Unknown value 'train' for argument split."),
    ],
)
def test_torchvisions_sets_that_are_not_there(folder, dataset, text):
    assert refusal(folder, "--dataset", dataset).startswith(
        f"{folder}: torchvision's {dataset} cannot read its train split there: {text}"
    )
