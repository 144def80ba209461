import errno
import gzip
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.beton.file_format import read_samples
from distcls.data.converting.convert import convert
from distcls.data.converting.sources import open_source
from distcls.data.converting.writer import Recorder
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader
from tests.data.conftest import Arrays, smooth


@pytest.fixture
def folder(tmp_path):
    """dog: two RGB; cat: grey, with alpha, and one deeper down."""
    root = tmp_path / "images"
    generator = np.random.default_rng(0)
    for name in ("dog/1.png", "dog/2.png", "cat/grey.png", "cat/alpha.png", "cat/more/deep.JPG"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(smooth(generator, 30, 40))
        image = image.convert({"grey": "L", "alpha": "RGBA"}.get(name[4:-4], "RGB"))
        image.save(root / name)
    (root / "cat/notes.txt").write_text("no image")
    return root


def pixels(path, size=28):
    loader = EvalLoader(BetonDataset(path), resolution=size, batch_size=50, workers=1, device="cpu", crop_ratio=1.0)
    return np.concatenate([batch.images[: batch.count].numpy() for batch in loader.batches()])


def test_a_folder(folder, tmp_path):
    out = tmp_path / "out.beton"
    sidecar = convert(open_source(folder), out, write_mode="raw", workers=2, origin=str(folder))
    dataset = BetonDataset(out)
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert sidecar == dataset.sidecar
    assert sidecar.class_counts == [3, 2]
    assert sidecar.sizes.height == [30, 30, 30]
    assert sidecar.sizes.width == [40, 40, 40]
    assert sidecar.jpeg_samples == 0
    assert sidecar.write["mode"] == "raw"
    assert sidecar.source["path"] == str(folder)
    images = [np.asarray(Image.open(folder / name).convert("RGB")) for name in
              ("cat/alpha.png", "cat/grey.png", "cat/more/deep.JPG", "dog/1.png", "dog/2.png")]  # fmt: skip
    flat = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    assert dataset.mean == pytest.approx(flat.mean(0), abs=1e-5)
    assert dataset.std == pytest.approx(flat.std(0), abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.beton", "out.json"]


def test_a_folder_with_splits(folder, tmp_path):
    (tmp_path / "set").mkdir()
    folder.rename(tmp_path / "set" / "val")
    assert len(open_source(tmp_path / "set", split="val")) == 5
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "set", split="train")
    assert str(caught.value) == (
        f"--split train: {tmp_path / 'set'} has no folder train: name the folder of the classes' folders"
    )
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "set")
    assert (
        str(caught.value)
        == f"{tmp_path / 'set'}: holds the folders val, not classes: add --split val, without --val-share"
    )


def test_the_folder_to_write_into_is_made(folder, tmp_path):
    result = CliRunner().invoke(app, ["convert", str(folder), str(tmp_path / "new/data/out.beton")])
    assert result.exit_code == 0, result.output
    assert len(BetonDataset(tmp_path / "new/data/out.beton")) == 5


def test_mean_and_std_of_a_large_photo_are_exact():
    """In sums of float32 they are off by 0.01."""
    moments = np.zeros((1, 2, 3), np.float32)
    Recorder(Arrays([np.full((4500, 4500, 3), 200, np.uint8)], [0]), moments)[0]
    assert moments[0, 0] == pytest.approx([200 / 255] * 3, rel=1e-7)
    assert moments[0, 1] == pytest.approx([(200 / 255) ** 2] * 3, rel=1e-7)


def test_max_resolution_and_jpeg(folder, tmp_path):
    sidecar = convert(open_source(folder), tmp_path / "out.beton", max_resolution=20, workers=1)
    assert sidecar.jpeg_samples == 5
    assert (sidecar.sizes.height[2], sidecar.sizes.width[2]) == (15, 20)


def test_the_number_of_workers_changes_nothing(jpeg_images, tmp_path):
    source = Arrays(jpeg_images, [i % 3 for i in range(60)], classes=3)
    outs = [tmp_path / f"{workers}.beton" for workers in (1, 3)]
    one, three = (
        convert(source, out, write_mode="proportion", workers=workers)
        for out, workers in zip(outs, (1, 3), strict=True)
    )
    assert 0 < one.jpeg_samples < 60
    assert one == three
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_a_bad_image_is_named_and_nothing_is_left(folder, tmp_path):
    out = tmp_path / "out.beton"
    out.write_text("what was there before")
    bad = folder / "dog/2.png"
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(DataError) as caught:
        convert(open_source(folder), out, workers=2)
    assert str(caught.value).startswith(f"{bad}: cannot be read as an image: ")
    assert str(caught.value).endswith(". Mend it or move it away.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.beton"]
    assert out.read_text() == "what was there before"


def test_links_to_folders_are_followed_but_not_in_a_circle(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "dog/1.png", tmp_path / "elsewhere/3.png")
    (folder / "dog/more").symlink_to(tmp_path / "elsewhere")
    (folder / "dog/again").symlink_to(folder / "dog")
    (folder / "dog/up").symlink_to(tmp_path)
    assert [file for file, label in open_source(folder).files if label] == ["dog/1.png", "dog/2.png", "dog/more/3.png"]


def test_a_folder_that_cannot_be_read(folder, monkeypatch):
    """Its images would be missing, without a word."""
    scan = os.scandir

    def refused(place):
        if str(place).endswith("/more"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError) as caught:
        open_source(folder)
    assert str(caught.value) == f"{folder / 'cat/more'}: cannot be read: Permission denied"


def test_a_list_without_labels(tmp_path):
    (tmp_path / "all.csv").write_text("path,labels\n1.png,\n2.png,\n")
    with pytest.raises(DataError, match=r"all\.csv: none of its 2 images has a label$"):
        open_source(tmp_path / "all.csv")


def test_what_is_no_image_is_found_before_the_work_begins(folder, tmp_path, monkeypatch):
    (folder / "cat/list.png").write_text("no image")
    monkeypatch.setattr("distcls.data.converting.writer.BetonWriter.write", None)
    with pytest.raises(DataError, match=r"cat/list\.png: cannot be read as an image: cannot identify"):
        convert(open_source(folder), tmp_path / "out.beton")


def test_a_worker_that_is_killed_ends_the_conversion(tmp_path):
    class Deadly(Arrays):
        def __getitem__(self, index):
            if index == 7:
                os.kill(os.getpid(), 9)
            return super().__getitem__(index)

    images = list(np.zeros((20, 8, 8, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        convert(Deadly(images, [0] * 20), tmp_path / "out.beton", workers=2)
    assert str(caught.value).endswith(
        "a writing process ended with exit code -9 and no message (-9: killed, often for memory: try fewer --workers)"
    )
    assert list(tmp_path.iterdir()) == []


def write_idx(path, array):
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()) if path.suffix == ".gz" else head + array.tobytes())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashion_mnists_files(tmp_path, suffix):
    root = tmp_path / "fashion"
    root.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    write_idx(root / f"t10k-images-idx3-ubyte{suffix}", images)
    write_idx(root / f"t10k-labels-idx1-ubyte{suffix}", np.arange(30, dtype=np.uint8) % 10)
    result = CliRunner().invoke(app, ["convert", str(root), str(tmp_path / "out.beton"), "--split", "test"])
    assert result.exit_code == 0, result.output
    dataset = BetonDataset(tmp_path / "out.beton")
    assert dataset.class_names[9] == "Ankle boot"
    assert dataset.labels.tolist() == [i % 10 for i in range(30)]
    assert dataset.sidecar.jpeg_samples == 0
    grey = pixels(tmp_path / "out.beton")[:, 0] * dataset.std[0] + dataset.mean[0]
    assert np.abs(grey * 255 - images).max() < 1e-3

    info = CliRunner().invoke(app, ["info", str(tmp_path / "out.beton")])
    assert info.exit_code == 0
    assert "30 (0 as JPEG)" in info.output
    assert "Ankle boot" in info.output


def test_an_idx_file_that_is_cut_short(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(3, np.uint8))
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    assert str(caught.value) == f"{path}: got 43 bytes of data, expected 48 for (3, 4, 4). Get the file again."


@pytest.mark.parametrize(
    ("labels", "text"),
    [([], "got 0 labels up to 0, expected some, of the"), ([3, 25], "got 2 labels up to 25, expected some, of the")],
)
def test_labels_that_these_sets_do_not_have(tmp_path, labels, text):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((len(labels), 4, 4), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array(labels, np.uint8))
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    assert str(caught.value) == f"{tmp_path}/train-labels-idx1-ubyte: {text} 10 classes 0..9"


def test_a_torchvision_set_without_labels(tmp_path, monkeypatch):
    """STL10's split unlabeled says -1 for each image."""
    import torchvision.datasets as sets

    class STL10:
        classes, labels = ("airplane", "bird"), np.array([-1])

        def __init__(self, root, split):
            pass

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Image.new("RGB", (96, 96)), -1

    monkeypatch.setattr(sets, "STL10", STL10)
    with pytest.raises(DataError) as caught:
        open_source(tmp_path, split="unlabeled", dataset="STL10")
    assert str(caught.value) == "torchvision STL10 unlabeled: image 0: got label -1, expected 0..1"


def test_cifar10_through_torchvision(tmp_path, monkeypatch):
    import torchvision.datasets as sets

    monkeypatch.setattr(sets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)
    for name in ["test_batch", *(f"data_batch_{n}" for n in range(1, 6))]:
        (root / name).write_bytes(pickle.dumps({"data": data, "labels": [3, 1, 0, 2]}))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car", "bird", "cat"]}))
    source = open_source(tmp_path, split="val")
    convert(source, tmp_path / "out.beton", workers=1)
    dataset = BetonDataset(tmp_path / "out.beton")
    assert dataset.class_names == ["plane", "car", "bird", "cat"]
    assert dataset.labels.tolist() == [3, 1, 0, 2]
    assert len(open_source(tmp_path, split="train")) == 20


def test_images_of_torchvision_are_decoded_once(tmp_path, monkeypatch):
    """Their sets decode as they open; for the largest image's size the headers do."""
    for number, side in enumerate((1000, 120, 110)):
        path = tmp_path / "eurosat/2750/cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (number, 2, 3)).save(path)
    source = open_source(tmp_path, dataset="EuroSAT")
    loaded = tmp_path / "loaded"
    load = PngImageFile.load

    def counted(image):
        with loaded.open("a") as file:  # also of the processes that write
            file.write("x" if image.tile else "")
        return load(image)

    monkeypatch.setattr(PngImageFile, "load", counted)
    monkeypatch.setattr(source, "fingerprint", lambda: "")
    sidecar = convert(source, tmp_path / "out.beton", workers=1, write_mode="raw")
    assert loaded.read_text() == "xxx"
    assert sidecar.sizes.height[2] == 1000
    assert read_samples(tmp_path / "out.beton")[1]["size"].max() == 3_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"write_mode": "jpeg"}, "--write-mode: got 'jpeg', expected one of raw, jpg, proportion, smart"),
        ({"quality": 0}, "--quality: got 0, expected 1..100"),
        ({"max_resolution": 0}, "--max-resolution: got 0, expected pixels between 1 and 65535"),
        ({"compress_probability": 2}, "--compress-probability: got 2, expected 0..1"),
    ],
)
def test_wrong_options_are_refused(raw_images, tmp_path, arguments, message):
    with pytest.raises(DataError) as caught:
        convert(Arrays(list(raw_images[:3]), [0] * 3), tmp_path / "out.beton", **arguments)
    assert str(caught.value) == message


def test_wrong_sources_are_refused(tmp_path):
    def refusal(*arguments):
        with pytest.raises(DataError) as caught:
            open_source(*arguments)
        return str(caught.value)

    assert (
        refusal(tmp_path / "none")
        == f"{tmp_path / 'none'}: no such file or folder, expected the images to convert, or a list of them"
    )
    assert refusal(tmp_path) == f"{tmp_path}: got no sub-folders with images, expected one sub-folder per class"
    assert refusal(tmp_path, "foldr") == (
        "--source-type: got 'foldr', expected auto or one of folder, csv, list, fashion-mnist, mnist, torchvision. "
        "Did you mean 'folder'?"
    )
    assert refusal(tmp_path, "auto", "train", "CIFAR11") == (
        "--dataset: got 'CIFAR11', expected the name of a class of torchvision.datasets. Did you mean 'CIFAR10'?"
    )
    assert refusal(tmp_path, "folder", None, "CIFAR10") == (
        f"--dataset CIFAR10: goes with --source-type torchvision, but {tmp_path} is read as folder"
    )
    for kind, dataset in (("fashion-mnist", None), ("auto", "CIFAR10")):
        text = "--split: got 'trian', expected one of train, val, test"
        assert refusal(tmp_path, kind, "trian", dataset) == text
    (tmp_path / "all.csv").write_text("path,label\n1.png,cat\n")
    assert refusal(tmp_path / "all.csv", "auto", "val") == (
        f"--split val: {tmp_path / 'all.csv'} is one list, all of which would be written: give the list of that split, "
        "or add --val-share to hold a part out"
    )
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path) == (
        f"{tmp_path / 'empty'}: holds no images, expected those of class 'empty' (one sub-folder per class)"
    )
