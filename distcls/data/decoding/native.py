"""FFCV's native library, and compiled functions that stay on disk."""

# numba.config makes its attributes when it is imported.
# mypy: disable-error-code="attr-defined"

import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from distcls.data.errors import DataError


def ffcv_library() -> str:
    """Path of FFCV's native library. Importing ffcv itself would cost seconds."""
    spec = importlib.util.find_spec("ffcv")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    found = [str(file) for folder in folders for file in Path(folder).glob("_libffcv*.so")]
    if not found:
        raise DataError(
            "FFCV is not installed, or without its native library _libffcv: "
            "`apt install libopencv-dev libturbojpeg0-dev pkg-config g++`, then `pip install ffcv`; "
            "without root install a wheel that launch/ffcv_wheel.sh made on another machine"
        )
    return found[0]


def cached_njit(function: Callable[..., Any]) -> Callable[..., Any]:
    """numba.njit with a cache on disk, local to the node and this user's own; the package's folder may be read-only.

    NUMBA_CACHE_DIR has its usual meaning where it is set.
    """
    previous = numba.config.CACHE_DIR
    if not previous:
        folder = Path(tempfile.gettempdir()) / f"distcls-numba-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        # numba unpickles what it finds there.
        if folder.stat().st_uid != os.getuid():
            return numba.njit(nogil=True, error_model="numpy")(function)
        numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba.config.CACHE_DIR = previous
