"""Decode, crop, resize and flip on the CPU in one compiled function: stored bytes -> (R, R, 3) uint8.

FFCV's own kernels are closures over ctypes pointers, which numba cannot cache on disk: 8-20 s of compilation in every
process. Here (kernels.py) its library is loaded by name and everything that varies is an argument, so each machine
compiles only once. The functions release the GIL.
"""

import ctypes
import functools
import math
from collections.abc import Callable

import llvmlite.binding
import numpy as np

from distcls.data.beton.file_format import JPEG, SAMPLE
from distcls.data.compiled import addresses
from distcls.data.decoding.ffcv_library import ffcv_library
from distcls.data.decoding.interpolation import CODES, Interpolation

_POINTER, _NUMBER = ctypes.c_uint64, ctypes.c_int64
_Decode = ctypes.CFUNCTYPE(
    None, *[_POINTER] * 4, _NUMBER, *[_POINTER] * 2, _NUMBER, *[_POINTER] * 4, *[_NUMBER] * 2, _POINTER
)
_Pack = ctypes.CFUNCTYPE(None, *[_POINTER] * 7, _NUMBER, _POINTER)


def decode_windows(
    samples: np.ndarray,
    indices: np.ndarray,
    windows: np.ndarray,
    window_decoder: int,
    interpolation: Interpolation,
    out: np.ndarray,
    status: np.ndarray,
) -> None:
    """Decode window windows[i] of image indices[i] and resize it into out[i].

    Args:
        samples: (N,) sample table with dtype `file_format.SAMPLE`.
        indices: (n,) int64; a negative index gives a black image.
        windows: (n, 6) int32, from `Windows.packed`.
        window_decoder: address from `jpeg_window.WindowDecoder`.
        interpolation: the resize filter.
        out: (n, R, R, 3) uint8, written.
        status: (n,) int32, written; nonzero where decoding failed, which leaves out[i] undefined.
    """
    number, size = out.shape[:2]
    longest = max(int(windows[:, 2:4].max()), size)
    cubic = interpolation == "bicubic"  # twice the support, and it resizes all rows before any column
    taps = 2 * math.ceil((1 + cubic) * longest / size) + 1
    scratch = _scratch(samples, indices, windows)
    # Per axis: the filter weights; per output pixel: the first input pixel and the number of taps.
    weights, places = np.empty((2, size, taps), np.float32), np.empty((4, size), np.int64)
    line = np.empty(3 * longest, np.float32)
    lines = np.empty(3 * longest * size if cubic else 0, np.uint8)
    decode, _ = _functions()
    decode(
        _address(samples, SAMPLE),
        _address(indices, np.int64),
        _address(windows, np.int32),
        window_decoder,
        CODES[interpolation],
        scratch.ctypes.data,
        weights.ctypes.data,
        taps,
        places.ctypes.data,
        line.ctypes.data,
        lines.ctypes.data,
        _address(out, np.uint8),
        number,
        size,
        _address(status, np.int32),
    )


def pack_windows(
    samples: np.ndarray,
    indices: np.ndarray,
    windows: np.ndarray,
    window_decoder: int,
    offsets: np.ndarray,
    packed: np.ndarray,
    status: np.ndarray,
) -> None:
    """Decode windows and store them one after another, for the GPU to resize and flip.

    Args:
        samples, indices, window_decoder, status: as `decode_windows`.
        windows: (n, 6) int32, from `Windows.packed`.
        offsets: (n,) int64: the (rows, cols, 3) pixels of windows[i] start at packed[offsets[i]]; 0 outside the image.
        packed: (bytes,) uint8, written.
    """
    scratch = _scratch(samples, indices, windows)
    _, pack = _functions()
    pack(
        _address(samples, SAMPLE),
        _address(indices, np.int64),
        _address(windows, np.int32),
        window_decoder,
        scratch.ctypes.data,
        _address(offsets, np.int64),
        _address(packed, np.uint8),
        len(indices),
        _address(status, np.int32),
    )


def decode_whole(samples: np.ndarray, index: int) -> np.ndarray | None:
    """Decode image `index` of the table: (height, width, 3) uint8, or None if its data is damaged."""
    height, width = int(samples["height"][index]), int(samples["width"][index])
    pixels, status = np.empty(height * width * 3, np.uint8), np.empty(1, np.int32)
    window = np.array([[0, 0, height, width, 0, 1]], np.int32)
    pack_windows(samples, np.array([index]), window, 0, np.zeros(1, np.int64), pixels, status)
    return None if status[0] else pixels.reshape(height, width, 3)


@functools.cache
def _functions() -> tuple[Callable[..., None], Callable[..., None]]:
    """The compiled decode_windows and pack_windows of kernels.py."""
    llvmlite.binding.load_library_permanently(ffcv_library())
    found = addresses("distcls.data.decoding.kernels")
    return _Decode(found["decode_windows"]), _Pack(found["pack_windows"])


def _scratch(samples: np.ndarray, indices: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Buffer for the largest of these images that is decoded whole; scaled sizes are rounded up, as TurboJPEG does."""
    real = indices >= 0
    chosen, denominator = samples[indices[real]], windows[real, 5].astype(np.int64)
    heights, widths = (-(-chosen[side].astype(np.int64) // denominator) for side in ("height", "width"))
    return np.empty(int((heights * widths * 3)[chosen["mode"] == JPEG].max(initial=0)), np.uint8)


def _address(array: np.ndarray, kind: np.dtype | type) -> int:
    assert array.dtype == kind
    assert array.flags.c_contiguous
    return array.ctypes.data
