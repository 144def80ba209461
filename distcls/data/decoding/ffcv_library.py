"""FFCV's native library, of which we take the JPEG decoder and OpenCV's INTER_AREA."""

import importlib.util
from pathlib import Path

from distcls.data.errors import DataError


def ffcv_library() -> str:
    """Its path. Importing ffcv itself would cost seconds."""
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
