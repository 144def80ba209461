"""From stored bytes to (R, R, 3) uint8 on the CPU: decode, crop, antialiased resize, mirror; one compiled function.

FFCV's own kernels are closures over ctypes pointers, which numba cannot keep on disk: 8-20 s of compilation in every
process. Here the library is loaded by name and everything that varies is an argument, so a machine compiles once. The
function is single-threaded and releases the interpreter lock; threads are the loader's. Its arithmetic is IEEE float32
without contraction: the pixels are the same on every machine and any number of threads.
"""

# numba's types inside compiled functions are not Python's.
# mypy: ignore-errors

import importlib.util
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from distcls.data.beton import JPEG
from distcls.data.errors import DataError


def _library() -> str:
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


llvmlite.binding.load_library_permanently(_library())
# int imdecode(source, size, height, width, out, crop_height, crop_width, x, y, scale_num, scale_denom, crop, flip)
_imdecode = types.ExternalFunction(
    "imdecode",
    types.int32(types.uintp, types.uint64, *[types.uint32] * 2, types.uintp, *[types.uint32] * 6, *[types.boolean] * 2),
)


def _cached_njit(function: Callable[..., Any]) -> Callable[..., Any]:
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


@intrinsic
def _pointer(typing_context, address):
    """An address as a pointer to bytes."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.uint64), generate


@numba.njit(inline="never")
def _copy_window(source, height, width, top, left, flip, out):
    """out (R, R, 3) = the R x R window of source (height * width * 3,) at (top, left); 0 outside of the image."""
    size = out.shape[0]
    for row in range(size):
        y = top + row
        for col in range(size):
            x = left + (size - 1 - col if flip else col)
            if 0 <= y < height and 0 <= x < width:
                at = (y * width + x) * 3
                out[row, col, 0] = source[at]
                out[row, col, 1] = source[at + 1]
                out[row, col, 2] = source[at + 2]
            else:
                out[row, col, 0] = out[row, col, 1] = out[row, col, 2] = 0


@numba.njit(inline="never")
def _triangle(length, size, first, count, weights):
    """Antialiased bilinear filter along one axis, `length` pixels -> `size`, as in Pillow and torchvision.

    Fills first (size,), count (size,) and weights (size, taps): output i = sum over t < count[i] of weights[i, t] *
    input[first[i] + t].
    """
    scale = length / size
    support = max(scale, 1.0)
    for i in range(size):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), length)
        total = 0.0
        for t in range(low, high):
            total += max(1.0 - abs((t - centre + 0.5) / support), 0.0)
        for t in range(low, high):
            weights[i, t - low] = max(1.0 - abs((t - centre + 0.5) / support), 0.0) / total
        first[i] = low
        count[i] = high - low


@numba.njit(inline="never")
def _resize_window(source, width, top, left, rows, cols, flip, out):
    """out (R, R, 3) = the (rows, cols) window of source (height * width * 3,) at (top, left), resized."""
    size = out.shape[0]
    first_row, row_count = np.empty(size, np.int64), np.empty(size, np.int64)
    first_col, col_count = np.empty(size, np.int64), np.empty(size, np.int64)
    row_weights = np.empty((size, 2 * math.ceil(max(rows / size, 1.0)) + 1), np.float32)
    col_weights = np.empty((size, 2 * math.ceil(max(cols / size, 1.0)) + 1), np.float32)
    _triangle(rows, size, first_row, row_count, row_weights)
    _triangle(cols, size, first_col, col_count, col_weights)
    line = np.empty(cols * 3, np.float32)
    for i in range(size):
        for t in range(row_count[i]):
            weight = row_weights[i, t]
            start = ((top + first_row[i] + t) * width + left) * 3
            pixels = source[start : start + cols * 3]
            if t == 0:
                for k in range(cols * 3):
                    line[k] = weight * np.float32(pixels[k])
            else:
                for k in range(cols * 3):
                    line[k] += weight * np.float32(pixels[k])
        for j in range(size):
            red = green = blue = np.float32(0.5)  # rounds to nearest
            at = first_col[j] * 3
            for t in range(col_count[j]):
                weight = col_weights[j, t]
                red += weight * line[at]
                green += weight * line[at + 1]
                blue += weight * line[at + 2]
                at += 3
            col = size - 1 - j if flip else j
            out[i, col, 0] = np.uint8(red)
            out[i, col, 1] = np.uint8(green)
            out[i, col, 2] = np.uint8(blue)


@numba.njit
def _shrunk(length, denominator):
    """How TurboJPEG rounds."""
    return (np.int64(length) + denominator - 1) // denominator


@numba.njit
def _scratch_bytes(samples, indices, windows):
    """Room for the largest of these images that has to be decoded."""
    largest = 0
    for i in range(len(indices)):
        if indices[i] >= 0 and samples[indices[i]].mode == JPEG:
            sample, denominator = samples[indices[i]], windows[i, 5]
            largest = max(largest, _shrunk(sample.height, denominator) * _shrunk(sample.width, denominator) * 3)
    return largest


@numba.njit
def _decode(sample, denominator, scratch):
    """The image's pixels in `scratch`; what the decoder returns."""
    height, width = sample.height, sample.width
    return _imdecode(
        sample.address,
        sample.size,
        height,
        width,
        scratch.ctypes.data,
        height,
        width,
        0,
        0,
        1,
        denominator,
        False,
        False,
    )


@_cached_njit
def decode_windows(samples, indices, windows, out, status):
    """out[i] = the window windows[i] of image indices[i], resized to out's size.

    Args:
        samples: (N,) table of `beton.SAMPLE`.
        indices: (n,) int64; below 0: the output is black.
        windows: (n, 6) int32 of `Windows.packed`.
        out: (n, R, R, 3) uint8.
        status: (n,) int32; not 0 where the decoder complained, and then out[i] is undefined.
    """
    scratch = np.empty(_scratch_bytes(samples, indices, windows), np.uint8)
    for i in range(len(indices)):
        status[i] = 0
        if indices[i] < 0:
            out[i] = 0
            continue
        sample = samples[indices[i]]
        top, left, rows, cols, flip, denominator = windows[i]
        height, width = _shrunk(sample.height, denominator), _shrunk(sample.width, denominator)
        source = scratch
        if sample.mode == JPEG:
            status[i] = _decode(sample, denominator, scratch)
            if status[i] != 0:
                continue
        else:
            source = numba.carray(_pointer(sample.address), (height * width * 3,), np.uint8)
        if rows == out.shape[1] and cols == out.shape[2]:
            _copy_window(source, height, width, top, left, flip != 0, out[i])
        else:
            _resize_window(source, width, top, left, rows, cols, flip != 0, out[i])


@_cached_njit
def pack_windows(samples, indices, windows, offsets, packed, status):
    """The windows of images one after the other, for a GPU to resize and mirror.

    Args:
        samples, indices, status: as `decode_windows`.
        windows: (n, 6) int32 of `Windows.packed`.
        offsets: (n,) int64: packed[offsets[i]:] gets the (rows, cols, 3) pixels of windows[i], 0 outside of the image.
        packed: (bytes,) uint8.
    """
    scratch = np.empty(_scratch_bytes(samples, indices, windows), np.uint8)
    for i in range(len(indices)):
        status[i] = 0
        top, left, rows, cols, _, denominator = windows[i]
        size = np.int64(rows) * cols * 3
        out = packed[offsets[i] : offsets[i] + size]
        if indices[i] < 0:
            out[:] = 0
            continue
        sample = samples[indices[i]]
        height, width = _shrunk(sample.height, denominator), _shrunk(sample.width, denominator)
        source = scratch
        if sample.mode == JPEG:
            status[i] = _decode(sample, denominator, scratch)
            if status[i] != 0:
                continue
        else:
            source = numba.carray(_pointer(sample.address), (height * width * 3,), np.uint8)
        if top >= 0 and left >= 0 and top + rows <= height and left + cols <= width:
            line = np.int64(cols) * 3
            for row in range(rows):
                start = ((top + row) * width + left) * 3
                out[row * line : (row + 1) * line] = source[start : start + line]
        else:
            _copy_window(source, height, width, top, left, False, out.reshape(rows, cols, 3))
