"""Compiled functions kept on disk: whoever comes later needs neither numba nor seconds."""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distcls.data import compiled

KERNELS = """
import numba
from numba import types

from distcls.data.beton.file_format import RAW


@numba.njit
def _sum(one, other):
    return one + other


def _add(one, other):
    return _sum(one, other) + RAW


C_FUNCTIONS = {"add": (types.int64(types.int64, types.int64), _add)}
"""
NAME = "kernels_of_a_test"
BATCH = """
import hashlib, sys
from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.dataset import BetonDataset
from distcls.data.loader import TrainLoader
loader = TrainLoader(BetonDataset(sys.argv[1]), resolution=int(sys.argv[2]), global_batch_size=16, seed=0, workers=2,
                     transforms=[RandomResizedCrop(), RandomHorizontalFlip()], device="cpu")
with loader.stream(0, 2) as stream:
    print(hashlib.sha256(next(stream).images.numpy().tobytes()).hexdigest(), "numba" in sys.modules)
"""


@pytest.fixture
def compilations(tmp_path, monkeypatch):
    """Of a module of one function, with a cache of its own: the modules that were compiled, one after the other."""
    (tmp_path / f"{NAME}.py").write_text(KERNELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    done, compile_ = [], compiled._compile

    def counted(module):
        done.append(module)
        return compile_(module)

    monkeypatch.setattr(compiled, "_compile", counted)
    return done


def add(one, other):
    """As a process that has not loaded the function yet."""
    compiled._loaded.pop(NAME, None)
    address = compiled.addresses(NAME)["add"]
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)(one, other)


def test_a_function_is_compiled_once(compilations):
    assert [add(40, 1), add(-3, 1)] == [42, -1]
    assert compilations == [NAME]


def test_a_damaged_file_is_made_anew(compilations, tmp_path):
    add(1, 1)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:20], whole[: len(whole) // 2], whole[:100] + b"?" + whole[101:]):
        file.write_bytes(damaged)
        assert add(40, 1) == 42
    assert len(compilations) == 5
    assert add(40, 1) == 42
    assert len(compilations) == 5


def test_another_source_is_another_function(compilations, tmp_path, monkeypatch):
    """Also where the change is in a module that constants come from: numba's own cache looks at a function's file alone."""
    before = compiled._version(NAME)
    read = compiled._source
    monkeypatch.setattr(compiled, "_source", lambda module: read(module) + "#" * module.endswith(".file_format"))
    constant = compiled._version(NAME)
    monkeypatch.setattr(compiled, "_source", lambda module: read(module) + "#" * (module == NAME))
    assert len({before, constant, compiled._version(NAME)}) == 3


def test_what_cannot_be_kept_is_of_use_all_the_same(compilations, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in ("/dev/full", "/proc/none", str(tmp_path / "file")):
        monkeypatch.setenv("NUMBA_CACHE_DIR", folder)
        assert add(40, 1) == 42
    assert compilations == [NAME] * 3


def test_a_full_disk_leaves_no_rest(compilations, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compiled.os, "replace", full)
    assert add(40, 1) == 42
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_folder_of_ones_own_nothing_is_kept(compilations, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "cache_folder", lambda: None)
    assert [add(40, 1), add(40, 1)] == [42, 42]
    assert compilations == [NAME, NAME]
    assert not (tmp_path / "cache").exists()


def test_nowhere_to_write_is_no_mistake(monkeypatch):
    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    assert compiled.cache_folder() is None


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of the folder in a world's /tmp, which others know, too."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return tmp_path / f"distcls-numba-{os.getuid()}"


def test_the_folder_is_the_users_own(own):
    assert compiled.cache_folder() == own
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_not_used(own, mode):
    own.mkdir()
    own.chmod(mode)
    assert compiled.cache_folder() is None


def test_a_link_in_the_folders_place_is_not_followed(own, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    own.symlink_to("elsewhere")
    assert compiled.cache_folder() is None


def test_a_file_in_the_folders_place(own):
    own.touch()
    assert compiled.cache_folder() is None


@pytest.mark.parametrize(
    ("owner", "mode", "trusted"),
    [(1000, 0o600, True), (0, 0o644, True), (1001, 0o600, False), (1000, 0o620, False), (0, 0o602, False)],
)
def test_whose_code_is_executed(monkeypatch, owner, mode, trusted):
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert compiled._ours(os.stat_result((mode, 0, 0, 1, owner, owner, 0, 0, 0, 0))) is trusted


def test_a_file_that_others_can_have_written_is_made_anew(compilations, tmp_path):
    add(1, 1)
    (file,) = (tmp_path / "cache").iterdir()
    file.chmod(0o666)
    assert add(40, 1) == 42
    assert compilations == [NAME] * 2
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_numba_with_other_ways_compiles_each_time(compilations, tmp_path, monkeypatch):
    from numba.core.codegen import CPUCodeLibrary

    monkeypatch.delattr(CPUCodeLibrary, "serialize_using_object_code")
    for _ in range(2):
        with pytest.warns(UserWarning, match="does not give its object code .*: each process spends seconds"):
            assert add(40, 1) == 42
    assert compilations == [NAME] * 2
    assert not (tmp_path / "cache").exists()


def test_numbas_switch_for_debugging_is_none_for_us(compilations, monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert add(40, 1) == 42


@pytest.mark.slow
def test_a_later_process_does_without_numba_and_makes_the_same_pixels(jpeg_beton, tmp_path):
    """Also at another resolution, for which nothing is compiled anew."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}

    def batch(resolution):
        command = [sys.executable, "-c", BATCH, str(jpeg_beton), str(resolution)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    pixels, compiles = batch(32)
    assert compiles == "True"
    assert batch(32) == [pixels, "False"]
    assert batch(48)[1] == "False"
