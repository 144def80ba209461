"""Conversion into several files: killed and started again, and what a reader makes of their names."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.converting.image_files import FolderSource
from distcls.data.converting.shards import convert_shards
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from tests.data.conftest import smooth
from tests.engine.launching import HANGS_S


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """45 JPEGs in three classes."""
    root = tmp_path_factory.mktemp("folder")
    generator = np.random.default_rng(0)
    for number in range(45):
        file = root / f"class_{number % 3}" / f"{number:03d}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(smooth(generator, *generator.integers(150, 250, 2))).save(file)
    return root


def convert(folder, out, *options):
    return CliRunner().invoke(app, ["convert", str(folder), str(out), "--shards", "3", "--workers", "1", *options])


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "train.beton"
    result = convert(folder, out)
    assert result.exit_code == 0, result.exception
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_are_one_data_set(folder, undisturbed):
    names = [f"train-{number:05d}-of-00003" for number in range(3)]
    assert sorted(contents(undisturbed.parent)) == [f"{name}.{kind}" for name in names for kind in ("beton", "json")]
    dataset = BetonDataset(str(undisturbed.parent / "train-*.beton"))
    assert [len(BetonDataset(path)) for path in dataset.paths] == [15] * 3
    assert dataset.labels.tolist() == [0] * 15 + [1] * 15 + [2] * 15
    assert dataset.sidecar.write["shard"] == 0
    assert dataset.sidecar.source["kind"] == "FolderSource"
    result = convert(folder, undisturbed)
    assert result.stdout.splitlines()[-1].startswith(f"{undisturbed.with_suffix('')}-*-of-00003.beton: 45 images, ")


@pytest.mark.parametrize("whole", [0, 2])
def test_killed_and_started_again_the_result_is_the_same(folder, undisturbed, tmp_path, whole):
    """With SIGKILL, while it works on the shard after `whole` whole ones."""
    source, out = Stuck(folder), tmp_path / "train.beton"
    source.first_stuck = 15 * whole + 5
    process = multiprocessing.get_context("fork").Process(
        target=convert_shards, args=(source, out), kwargs={"shards": 3, "workers": 2, "origin": str(folder)}
    )
    process.start()
    until = time.monotonic() + HANGS_S
    while len(list(tmp_path.glob("*.beton"))) < whole or not list(tmp_path.glob(".train-*.tmp")):
        assert time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.beton")}
    assert len(before) == whole
    result = convert(folder, out)
    assert result.exit_code == 0, result.exception
    assert contents(tmp_path) == contents(undisturbed.parent)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "whole shards were written again"


class Stuck(FolderSource):
    """Gives no image from one on, so that a kill finds it at work; it is to look like the folder it is."""

    def __getitem__(self, index):
        if index >= self.first_stuck:
            time.sleep(HANGS_S)
        return super().__getitem__(index)


Stuck.__name__ = "FolderSource"


def test_a_shard_between_its_sidecar_and_its_name(folder, undisturbed, tmp_path):
    """Killed there, its sidecar describes no file; the next conversion replaces it."""
    for name, content in contents(undisturbed.parent).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "train-00002-of-00003.beton").unlink()
    assert convert(folder, tmp_path / "train.beton").exit_code == 0
    assert contents(tmp_path) == contents(undisturbed.parent)


@pytest.fixture
def partial(undisturbed, tmp_path):
    """Two of the three shards."""
    for name, content in contents(undisturbed.parent).items():
        if name < "train-00002":
            (tmp_path / name).write_bytes(content)
    return tmp_path / "train.beton"


def test_a_shard_whose_bytes_changed_is_not_kept(folder, partial):
    path = partial.with_name("train-00001-of-00003.beton")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 12345] ^= 1  # in one image
    path.write_bytes(data)
    message = str(convert(folder, partial).exception)
    assert message in (f"{path}: its bytes are not those that were written: remove it, and start this command again",)


def test_shards_of_other_images_or_options_are_not_mixed(folder, partial, tmp_path):
    message = str(convert(folder, partial, "--quality", "80").exception)
    first = partial.with_name("train-00000-of-00003.beton")
    assert message == (
        f"{first}: was written with other quality: 90 there, 80 now. Move it away, or convert with what it was written "
        "with"
    )
    shutil.copytree(folder, tmp_path / "more")
    shutil.copy(folder / "class_0/000.jpg", tmp_path / "more/class_0/000a.jpg")
    assert f"{first}: was written with other images: " in str(convert(tmp_path / "more", partial).exception)
    arguments = ["convert", str(folder), str(partial), "--shards", "4"]
    assert str(CliRunner().invoke(app, arguments).exception) == (
        f"{first}: lies where train-00000-of-00004.beton and so on are to be written, but is a shard of another "
        "conversion: move it away, give another name, or go on with its number of --shards"
    )


def test_an_image_that_cannot_be_read_stops_at_its_shard_and_is_mended(folder, undisturbed, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    bad = sorted(images.rglob("*.jpg"))[20]
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    (tmp_path / "out").mkdir()
    message = str(convert(images, tmp_path / "out/train.beton").exception)
    assert message.startswith(f"{bad}: cannot be read as an image: ")
    assert message.endswith(" (1 of 3 shards are whole and stay: the same command goes on from there.)")
    bad.write_bytes(whole)
    assert convert(images, tmp_path / "out/train.beton").exit_code == 0
    found, expected = contents(tmp_path / "out"), contents(undisturbed.parent)
    assert all(found[name] == expected[name] for name in expected if name.endswith(".beton"))


def test_what_is_skipped_is_listed_over_all_shards(folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    bad = [sorted(images.rglob("*.jpg"))[number] for number in (3, 40)]
    for path in bad:
        path.write_bytes(b"")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/train.beton"
    for _ in range(2):  # the second time all shards are there
        result = convert(images, out, "--on-error", "skip")
        assert result.exit_code == 0, result.exception
        assert result.stdout.endswith(
            f"2 images could not be read or stored and are left out: {out.with_suffix('.report.json')}\n"
        )
        report = json.loads(out.with_suffix(".report.json").read_text())
        assert (report["images"], report["written"]) == (45, 43)
        assert [entry["image"] for entry in report["skipped"]] == list(map(str, bad))


def test_a_shuffled_conversion(folder, tmp_path):
    for name in ("a", "b"):
        assert convert(folder, tmp_path / f"{name}.beton", "--shuffle").exit_code == 0
    one, two = (BetonDataset(str(tmp_path / f"{name}-*.beton")) for name in "ab")
    assert one.fingerprint == two.fingerprint
    assert np.bincount(one.labels).tolist() == [15] * 3
    assert len(set(one.labels[:15])) == 3
    assert one.sidecar.write["shuffle_seed"] == 0


def test_a_size_in_place_of_a_number(folder, tmp_path):
    def run(size):
        arguments = ["convert", str(folder), str(tmp_path / "out.beton"), "--write-mode", "raw", "--shard-size", size]
        return CliRunner().invoke(app, arguments)

    result = run("2MiB")
    assert result.exit_code == 0, result.exception
    shards = len(list(tmp_path.glob("*.beton")))
    assert f"--shards {shards}, for about 2MiB each\n" in result.stdout
    total = sum(len(np.asarray(Image.open(path)).ravel()) for path in folder.rglob("*.jpg"))
    assert total / shards == pytest.approx(2 * 2**20, rel=0.35)
    assert str(run("4 apples").exception) == (
        "--shard-size: got '4 apples', expected bytes such as 2GiB, 500MB or 1000000"
    )


def test_wrong_numbers_of_shards(folder, tmp_path):
    arguments = ["convert", str(folder), str(tmp_path / "out.beton"), "--shards"]
    for number in ("0", "46"):
        message = str(CliRunner().invoke(app, [*arguments, number]).exception)
        assert message == f"--shards: got {number}, expected 1..45, the number of images"
    assert list(tmp_path.iterdir()) == []


def test_info_is_of_one_file(undisturbed):
    """It would say the first shard's numbers."""
    pattern = str(undisturbed.with_name("train-*.beton"))
    assert str(CliRunner().invoke(app, ["info", pattern]).exception) == (
        f"{pattern}: names 3 files, expected one: {undisturbed.with_name('train-00000-of-00003.beton')}, for example"
    )


def test_patterns(partial, tmp_path):
    def refusal(pattern):
        with pytest.raises(DataError) as caught:
            BetonDataset(str(tmp_path / pattern))
        return str(caught.value)

    assert refusal("val-*.beton") == (
        f"{tmp_path}/val-*.beton: no such files. `distcls data convert SOURCE NAME.beton --shards N` writes shards."
    )
    assert refusal("train-*.beton") == (
        f"{tmp_path}/train-*.beton: 1 of 3 shards are missing, train-00002-of-00003.beton first. Finish the "
        "conversion, or name the shards that you want as a list."
    )
    assert len(BetonDataset(sorted(tmp_path.glob("*.beton")))) == 30
    for number in range(2):
        (tmp_path / f"val-{number:05d}-of-00002.beton").touch()
        (tmp_path / f"test-{number:05d}-of-00002.beton").touch()

    assert refusal("[vt]*-of-00002.beton") == (
        f"{tmp_path}/[vt]*-of-00002.beton: names the shards of 2 data sets: test-*-of-00002.beton and "
        "val-*-of-00002.beton"
    )
    (tmp_path / "val-small.beton").touch()
    assert refusal("val-*.beton") == (
        f"{tmp_path}/val-*.beton: names val-small.beton beside the shards val-*-of-00002.beton: its images may be the "
        "same ones. Give the pattern of the shards, or name the files that you want as a list."
    )


def test_two_conversions_into_the_same_shards(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("distcls.data.converting.target._PATIENCE", 0.1)
    out, other = tmp_path / "train.beton", []

    class Nosy(FolderSource):
        """Starts a second conversion while the first one runs."""

        def pixels_of(self, index):
            if index % 15 == 0:
                other.append(str(convert(folder, out).exception))
            return super().pixels_of(index)

    convert_shards(Nosy(folder), out, shards=3, workers=1)
    message = f"{out}: another `distcls data convert` is writing it: wait for it, or give another name"
    assert other == [message] * 3
    assert len(BetonDataset(str(tmp_path / "train-*.beton"))) == 45


def test_a_full_disk_keeps_the_whole_shards(folder, undisturbed, tmp_path, monkeypatch):
    write = os.pwrite

    def full(file, data, offset):
        if list(tmp_path.glob("train-00001-of-00003.beton")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        path = tmp_path / "train-00002-of-00003.beton"
        assert str(convert(folder, tmp_path / "train.beton").exception) == (
            f"{path}: cannot be written: No space left on device. It is as it was before. "
            "(2 of 3 shards are whole and stay: the same command goes on from there.)"
        )
    assert not list(tmp_path.glob(".*"))
    assert convert(folder, tmp_path / "train.beton").exit_code == 0
    assert contents(tmp_path) == contents(undisturbed.parent)
