"""From stored bytes to (R, R, 3) uint8 on the CPU: decode, crop, resize, mirror; one compiled function.

FFCV's own kernels are closures over ctypes pointers, which numba cannot keep on disk: 8-20 s of compilation in every
process. Here (kernels.py) its library is loaded by name and everything that varies is an argument, so a machine
compiles once. The functions release the interpreter lock.
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
    """out[i] = the window windows[i] of image indices[i], resized to out's size.

    Args:
        samples: (N,) table of `file_format.SAMPLE`.
        indices: (n,) int64; below 0: the output is black.
        windows: (n, 6) int32 of `Windows.packed`.
        window_decoder: address in `jpeg_window.WindowDecoder`.
        interpolation: the filter.
        out: (n, R, R, 3) uint8.
        status: (n,) int32; not 0 where the decoder complained, and then out[i] is undefined.
    """
    number, size = out.shape[:2]
    longest = max(int(windows[:, 2:4].max()), size)
    cubic = interpolation == "bicubic"  # reaches twice as far, and makes all lines before it makes columns
    taps = 2 * math.ceil((1 + cubic) * longest / size) + 1
    scratch = _scratch(samples, indices, windows)
    # Of each axis the filter's weights, and of each output pixel the first input pixel and their number.
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
    """The windows of images one after the other, for a GPU to resize and mirror.

    Args:
        samples, indices, window_decoder, status: as `decode_windows`.
        windows: (n, 6) int32 of `Windows.packed`.
        offsets: (n,) int64: packed[offsets[i]:] gets the (rows, cols, 3) pixels of windows[i], 0 outside of the image.
        packed: (bytes,) uint8.
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
    """Image `index` of the table, (height, width, 3) uint8; None where the decoder complains."""
    height, width = int(samples["height"][index]), int(samples["width"][index])
    pixels, status = np.empty(height * width * 3, np.uint8), np.empty(1, np.int32)
    window = np.array([[0, 0, height, width, 0, 1]], np.int32)
    pack_windows(samples, np.array([index]), window, 0, np.zeros(1, np.int64), pixels, status)
    return None if status[0] else pixels.reshape(height, width, 3)


@functools.cache
def _functions() -> tuple[Callable[..., None], Callable[..., None]]:
    """kernels.py's decode_windows and pack_windows."""
    llvmlite.binding.load_library_permanently(ffcv_library())
    found = addresses("distcls.data.decoding.kernels")
    return _Decode(found["decode_windows"]), _Pack(found["pack_windows"])


def _scratch(samples: np.ndarray, indices: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Room for the largest of these images that has to be decoded whole; sizes shrink as TurboJPEG rounds."""
    real = indices >= 0
    chosen, denominator = samples[indices[real]], windows[real, 5].astype(np.int64)
    heights, widths = (-(-chosen[side].astype(np.int64) // denominator) for side in ("height", "width"))
    return np.empty(int((heights * widths * 3)[chosen["mode"] == JPEG].max(initial=0)), np.uint8)


def _address(array: np.ndarray, kind: np.dtype | type) -> int:
    assert array.dtype == kind
    assert array.flags.c_contiguous
    return array.ctypes.data
