"""More shards than a process may have files open at first."""

import os
import resource

import pytest

from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError


@pytest.fixture
def soft_limit():
    """This process's, which the test may lower."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_where_all_shards_pass_it(raw_beton, soft_limit):
    soft_limit(len(os.listdir("/proc/self/fd")) + 40)
    dataset = BetonDataset([raw_beton] * 60)
    assert len(dataset) == 60 * 1000
    assert len(os.listdir("/proc/self/fd")) > 60


def test_the_soft_limit_stays_where_it_is_enough(raw_beton, soft_limit):
    soft_limit(1000)
    BetonDataset([raw_beton] * 2)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1000


def test_the_hard_limit_is_an_error_that_says_what_to_do(raw_beton, monkeypatch):
    monkeypatch.setattr("os.listdir", lambda folder: ["fd"] * 50)
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 1024))
    with pytest.raises(DataError) as caught:
        BetonDataset([raw_beton] * 1000)
    assert str(caught.value) == (
        f"{raw_beton} and 999 other shards: got a limit of 1024 open files, expected 1250 or more: each shard is kept "
        "open. Raise the limit (`ulimit -Hn`, LimitNOFILE), or convert to fewer, larger shards."
    )
