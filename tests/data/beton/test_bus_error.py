"""A .beton that is truncated in place while its pages are read: an error that names it, not a dead process."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_truncated_file_ends_the_stream_with_one_error(raw_copy, monkeypatch, workers):
    monkeypatch.setattr("distcls.data.dataset.time.monotonic", lambda: 100.0)  # never time to look by itself
    dataset = BetonDataset(raw_copy)
    loader = EvalLoader(dataset, resolution=28, batch_size=50, workers=workers, device="cpu", batches_ahead=1)
    size = raw_copy.stat().st_size
    with loader.batches() as stream:
        next(stream)
        os.truncate(raw_copy, 2**21 + 400_000)
        monkeypatch.setattr("distcls.data.dataset.time.monotonic", lambda: 100.1)
        with pytest.raises(DataError) as caught:
            for _ in stream:
                pass
    assert str(caught.value) == (
        f"{raw_copy}: went from {size} to {2**21 + 400_000} bytes while it was in use: batches from now on would not be "
        "this run's. Put the file back that the run began with and start again, or begin a new run."
    )
    assert not loader.streaming


def test_a_disk_that_fails(raw_copy, monkeypatch):
    """As above, but the file looks as it did."""
    dataset = BetonDataset(raw_copy)
    monkeypatch.setattr(dataset, "check_unchanged", lambda every=1.0: None)
    loader = EvalLoader(dataset, resolution=28, batch_size=50, workers=1, device="cpu")
    os.truncate(raw_copy, 2**21 + 400_000)
    with pytest.raises(DataError) as caught:
        list(loader.batches())
    assert str(caught.value) == (
        f"{raw_copy}: some of its bytes cannot be read, though nobody changed the file: the disk or its server fails "
        "(`dmesg` may say more). Copy the file anew, and start again."
    )


def test_a_file_that_is_closed_is_guarded_no_more(raw_copy):
    from distcls.data.beton import bus_error

    gc.collect()
    before = int((bus_error._FILES[:, 1] > 0).sum())
    dataset = BetonDataset(raw_copy)
    dataset.guard()
    dataset.guard()
    assert int((bus_error._FILES[:, 1] > 0).sum()) == before + 1
    del dataset
    gc.collect()
    assert int((bus_error._FILES[:, 1] > 0).sum()) == before


@pytest.mark.parametrize("faulthandler", [False, True])
def test_other_peoples_bus_errors_still_end_the_process(raw_copy, faulthandler):
    """A mapping that is not ours, with and without Python's own handler."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import faulthandler, numpy as np, os
if {faulthandler}: faulthandler.enable()
from distcls.data.dataset import BetonDataset
dataset = BetonDataset({str(raw_copy)!r}); dataset.guard()
open({str(raw_copy)!r} + "2", "wb").write(bytes(100_000))
other = np.memmap({str(raw_copy)!r} + "2", np.uint8, "r")
os.truncate({str(raw_copy)!r} + "2", 10)
print(other[50_000])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -7, done.stderr
    assert ("Bus error" in done.stderr) == faulthandler


def test_what_is_lost_reads_as_zeros(raw_copy):
    dataset = BetonDataset(raw_copy)
    dataset.guard()
    file = dataset._files[0]
    os.truncate(raw_copy, 4096)
    assert not np.any(file[2**21 : 2**21 + 100_000])
