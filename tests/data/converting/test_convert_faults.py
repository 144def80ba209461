"""What a conversion does when images, disk or another conversion are in its way."""

import errno
import fcntl
import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distcls.cli.data import app
from distcls.data.converting import writer
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from tests.data.conftest import Arrays


@pytest.fixture
def folder(tmp_path):
    """150 images of one colour each, in two classes; three of them damaged in three ways."""
    root = tmp_path / "images"
    for number in range(150):
        file = root / f"class_{number % 2}" / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(file)
    (root / "class_0/004.png").write_text("no image")
    (root / "class_1/149.png").write_bytes(b"")
    cut = root / "class_0/100.png"
    cut.write_bytes(cut.read_bytes()[:45])
    return root


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("workers", ["1", "3"])
def test_what_cannot_be_read_is_skipped_counted_and_listed(folder, tmp_path, workers):
    out = tmp_path / "out.beton"
    arguments = ["convert", str(folder), str(out), "--on-error", "skip", "--write-mode", "raw", "--workers", workers]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    report = tmp_path / "out.report.json"
    assert result.stdout.endswith(f"3 images could not be read or stored and are left out: {report}\n")
    dataset = BetonDataset(out)
    assert dataset.sidecar.write["skipped"] == 3
    assert dataset.sidecar.class_counts == [73, 74]
    expected = [n for n in (*range(0, 150, 2), *range(1, 150, 2)) if n not in (4, 100, 149)]
    at = [int(sample["address"]) - dataset._files[0].ctypes.data for sample in dataset.samples]
    assert [int(dataset._files[0][a]) for a in at] == expected
    assert dataset.mean[0] == pytest.approx(np.mean(expected) / 255, abs=1e-6)
    listed = json.loads(report.read_text())
    assert (listed["images"], listed["written"]) == (150, 147)
    assert [entry["image"] for entry in listed["skipped"]] == [
        str(folder / name) for name in ("class_0/004.png", "class_0/100.png", "class_1/149.png")
    ]
    assert "cannot be read as an image: cannot identify" in listed["skipped"][0]["error"]


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "images/only").mkdir(parents=True)
    (tmp_path / "images/only/1.png").write_text("no image")
    arguments = ["convert", str(tmp_path / "images"), str(tmp_path / "out.beton"), "--on-error", "skip"]
    result = CliRunner().invoke(app, arguments)
    assert str(result.exception).startswith("none of the 1 images can be read and stored; the first: ")
    assert names(tmp_path) == ["images"]


def test_a_wrong_on_error(raw_images, tmp_path):
    with pytest.raises(DataError, match=r"^--on-error: got 'ignore', expected one of stop, skip$"):
        convert(Arrays(list(raw_images[:3]), [0] * 3), tmp_path / "out.beton", on_error="ignore")


def test_two_conversions_into_one_file(raw_images, tmp_path):
    out = tmp_path / "out.beton"

    class Nosy(Arrays):
        """Starts a second conversion while the first one runs."""

        def pixels_of(self, index):
            with pytest.raises(DataError) as caught:
                convert(Arrays(self.images, self.labels), out, workers=1)
            assert str(caught.value) == (
                f"{out}: another `distcls data convert` is writing it: wait for it, or give another name"
            )
            return super().pixels_of(index)

    convert(Nosy(list(raw_images[:1]), [0]), out, workers=2)
    assert len(BetonDataset(out)) == 1
    assert names(tmp_path) == ["out.beton", "out.json"]


def test_what_a_killed_conversion_left_is_taken_over(raw_images, tmp_path):
    (tmp_path / ".out.beton.tmp").write_bytes(os.urandom(10_000_000))
    convert(Arrays(list(raw_images[:50]), [0] * 50), tmp_path / "out.beton", workers=1)
    convert(Arrays(list(raw_images[:50]), [0] * 50), tmp_path / "again.beton", workers=3)
    assert (tmp_path / "out.beton").read_bytes() == (tmp_path / "again.beton").read_bytes()
    assert names(tmp_path) == ["again.beton", "again.json", "out.beton", "out.json"]


def test_no_more_processes_may_be_started(raw_images, tmp_path, monkeypatch):
    """As where a job's limit of processes is reached."""
    started = []

    def start(process, real=writer._FORK.Process.start):
        if started:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(process)
        real(process)

    monkeypatch.setattr(writer._FORK.Process, "start", start)
    with pytest.raises(DataError) as caught:
        convert(Arrays(list(raw_images[:3]), [0] * 3), tmp_path / "out.beton", workers=3)
    assert str(caught.value) == (
        f"{tmp_path / 'out.beton'}: cannot be written: Resource temporarily unavailable. It is as it was before."
    )
    assert not started[0].is_alive()


def test_a_worker_keeps_few_large_images(raw_images, tmp_path, monkeypatch):
    """64 photographs of 24 million pixels would be 4.6 GB in each worker. The file is the same, byte for byte."""
    files, chunks = [], []

    class Counted(writer.BetonWriter):
        def write(self, recorder, page_size):
            super().write(recorder, page_size)
            chunks.append(int(self._turn[0]))

    monkeypatch.setattr(writer, "BetonWriter", Counted)
    for most in (1 << 28, 3 << 21, 1):  # pages are of 2 MiB
        monkeypatch.setattr(writer, "_CHUNK_BYTES", most)
        convert(Arrays(list(raw_images[:150]), [0] * 150), tmp_path / "out.beton", workers=2)
        files.append((tmp_path / "out.beton").read_bytes())
    assert chunks == [3, 50, 150]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("content", [b'{"annotations": []}', b"[1, 2]", b"not JSON \xff"])
def test_a_file_in_the_sidecars_place_is_not_lost(raw_images, tmp_path, content):
    out, images = tmp_path / "train.beton", Arrays(list(raw_images[:3]), [0] * 3)
    out.with_suffix(".json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        convert(images, out, workers=1)
    assert str(caught.value) == (
        f"{tmp_path / 'train.json'}: is there, and no sidecar that may be written over: move it away, or give another "
        "name than train.beton"
    )
    assert out.with_suffix(".json").read_bytes() == content
    out.with_suffix(".json").unlink()
    for _ in range(2):  # over a sidecar, as often as wanted
        convert(images, out, workers=1)


@pytest.mark.parametrize("at", [0, 1_500_000])
def test_a_full_disk(raw_images, tmp_path, monkeypatch, at):
    """`at`: the offset from which on the disk is full; the header is written last, at 0."""
    out = tmp_path / "out.beton"
    convert(Arrays(list(raw_images[:9]), [0] * 9), out, workers=1)
    before = out.read_bytes(), out.with_suffix(".json").read_bytes()
    write = os.pwrite

    def full(file, data, offset):
        if offset >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError) as caught:
        convert(Arrays(list(raw_images), [0] * 1000), out, workers=2)
    assert str(caught.value) == f"{out}: cannot be written: No space left on device. It is as it was before."
    assert names(tmp_path) == ["out.beton", "out.json"]
    assert (out.read_bytes(), out.with_suffix(".json").read_bytes()) == before


def test_where_the_file_system_has_no_locks(raw_images, tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    convert(Arrays(list(raw_images[:5]), [0] * 5), tmp_path / "out.beton", workers=1)
    assert len(BetonDataset(tmp_path / "out.beton")) == 5


def test_ffcv_reads_it_and_no_image_crosses_a_page(tmp_path):
    from ffcv.reader import Reader

    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (600, 500 + i, 3), np.uint8) for i in range(7)]
    convert(Arrays(images, [1] * 7), tmp_path / "out.beton", write_mode="raw", workers=2)
    reader = Reader(str(tmp_path / "out.beton"))
    table = np.sort(reader.alloc_table, order="sample_id")
    assert reader.num_samples == 7
    assert reader.page_size == 1 << 21
    assert (table["ptr"] // reader.page_size == (table["ptr"] + table["size"] - 1) // reader.page_size).all()
    assert (table["ptr"] == reader.metadata["f0"]["data_ptr"]).all()
    assert reader.metadata["f1"].tolist() == [1] * 7
