"""A .beton that changes under a running job."""

import os
import shutil

import pytest

from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader


def other_file(path):
    shutil.copy(path, path.with_name("new"))
    os.replace(path.with_name("new"), path)


def a_file_in_its_folders_place(path):
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.touch()


def longer(path):
    with path.open("ab") as file:
        file.write(bytes(24))


def written_to(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"other")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_file, "was replaced by another file"),
        (os.unlink, "was removed, or can no longer be reached,"),
        (a_file_in_its_folders_place, "was removed, or can no longer be reached,"),
        (longer, "went from {size} to {longer} bytes"),
        (written_to, "was written to"),
    ],
)
def test_a_change_ends_the_stream_with_one_error(raw_copy, monkeypatch, change, text):
    clock = [100.0]
    monkeypatch.setattr("distcls.data.dataset.time.monotonic", lambda: clock[0])
    loader = EvalLoader(BetonDataset(raw_copy), resolution=28, batch_size=50, workers=1, device="cpu")
    size = raw_copy.stat().st_size
    with loader.batches() as stream:
        next(stream)
        change(raw_copy)
        next(stream)  # looked at once a second at most
        clock[0] += 1.5
        with pytest.raises(DataError) as caught:
            next(stream)
        assert str(caught.value) == (
            f"{raw_copy}: {text.format(size=size, longer=size + 24)} while it was in use: batches from now on would not be "
            "this run's. Put the file back that the run began with and start again, or begin a new run."
        )
        assert not loader.streaming


def test_a_file_that_only_was_read_goes_on(raw_copy, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("distcls.data.dataset.time.monotonic", lambda: clock[0])
    loader = EvalLoader(BetonDataset(raw_copy), resolution=28, batch_size=500, workers=1, device="cpu")
    with loader.batches() as stream:
        for _ in stream:
            raw_copy.read_bytes()
            clock[0] += 2
