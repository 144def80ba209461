"""Locates FFCV's native library, used for its JPEG decoder and OpenCV's INTER_AREA resize."""

import importlib.util
from pathlib import Path

from distcls.data.errors import DataError


def ffcv_library() -> str:
    """Path of the library, found without importing ffcv, which takes seconds.

    Raises:
        DataError: FFCV or its native library is not installed.
    """
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
