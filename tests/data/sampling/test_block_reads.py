"""A data set larger than what may be in memory: what of its file stays mapped, and what stays in the page cache."""

import ctypes
import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.loader import TrainLoader
from tests.data.conftest import Arrays

BATCH, SIZE, WINDOW, IMAGE = 32, 16, 2, 64 * 64 * 3


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two shards of 49 MB each."""
    folder = tmp_path_factory.mktemp("large")
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 64, 64, 3), np.uint8)
    for number in range(2):
        convert(Arrays(list(pixels ^ np.uint8(number)), [0] * 4000), folder / f"{number}.beton", workers=2)
    return [folder / f"{number}.beton" for number in range(2)]


def mapped_bytes(paths):
    """Of these files in this process's memory."""
    found = 0
    for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        if entry.split("\n")[0].endswith(tuple(map(str, paths))):
            found += 1024 * int(re.search(r"Rss:\s+(\d+)", entry)[1])
    return found


def cached_bytes(dataset):
    """Of its files in the page cache."""
    found = 0
    for file in dataset._files:
        pages = np.zeros(-(-len(file) // mmap.PAGESIZE), np.uint8)
        ctypes.CDLL(None).mincore(*map(ctypes.c_void_p, (file.ctypes.data, len(file), pages.ctypes.data)))
        found += int((pages & 1).sum()) * mmap.PAGESIZE
    return found


def largest(paths, ranks=1, **sampler):
    """Over an epoch and a bit, of rank 0: the most bytes mapped, and of those in the page cache the last."""
    dataset = BetonDataset(paths)
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    loader = TrainLoader(
        dataset,
        resolution=8,
        transforms=[],
        global_batch_size=BATCH,
        world_size=ranks,
        seed=1,
        workers=2,
        device="cpu",
        **sampler,
    )
    most = 0
    with loader.stream(0, 260) as stream:
        for number, _ in enumerate(stream):
            if number % 10 == 0:
                most = max(most, mapped_bytes(paths))
    cached = cached_bytes(dataset)
    loader.close()
    return most, cached


@pytest.mark.parametrize("ranks", [1, 4])
def test_what_is_in_memory_is_bounded(large, ranks):
    bound = 1.25 * BATCH / ranks * SIZE * WINDOW * IMAGE + 8e6  # the rest: header, records and tables
    most, cached = largest(large, ranks, block_size=SIZE, block_window=WINDOW)
    assert most < bound
    if ranks == 1:
        assert cached < 2 * bound


def test_a_full_shuffle_keeps_all_of_it(large):
    most, _ = largest(large)
    assert most > 90e6
