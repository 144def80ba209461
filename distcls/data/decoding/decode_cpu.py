"""From stored bytes to (R, R, 3) uint8 on the CPU: decode, crop, resize, mirror; one compiled function.

FFCV's own kernels are closures over ctypes pointers, which numba cannot keep on disk: 8-20 s of compilation in every
process. Here the library is loaded by name and everything that varies is an argument, so a machine compiles once. The
function is single-threaded and releases the interpreter lock; threads are the loader's. Its arithmetic is IEEE float32
without contraction: the pixels are the same on every machine and any number of threads.
"""

# numba's types inside compiled functions are not Python's.
# mypy: ignore-errors

import math

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distcls.data.beton.file_format import JPEG
from distcls.data.decoding.native import cached_njit, ffcv_library

llvmlite.binding.load_library_permanently(ffcv_library())
# int imdecode(source, size, height, width, out, crop_height, crop_width, x, y, scale_num, scale_denom, crop, flip)
_imdecode = types.ExternalFunction(
    "imdecode",
    types.int32(types.uintp, types.uint64, *[types.uint32] * 2, types.uintp, *[types.uint32] * 6, *[types.boolean] * 2),
)


@intrinsic
def _pointer(typing_context, address):
    """An address as a pointer to bytes."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint8)(types.uint64), generate


# void resize(_, source, height, width, first row, end row, first column, end column, out, rows, cols, interpolation):
# OpenCV's. FFCV 1.0.2 has no last argument and always takes INTER_AREA, which its later sources take as the number 3.
_resize_by_ffcv = types.ExternalFunction("resize", types.void(*[types.int64] * 12))
_INTER_AREA = 3


@intrinsic
def _decode_window(typing_context, function, source, size, height, width, denominator, top, left, rows, cols, out):
    """Call jpeg_window.c's decode_window at address `function`."""
    kinds = [types.uint64, types.uint64, types.uint64, *[types.uint32] * 7, types.uint64]

    def generate(context, builder, signature, arguments):
        function, source, *numbers, out = arguments
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [byte, ir.IntType(64), *[ir.IntType(32)] * 7, byte])
        pointers = [builder.inttoptr(address, byte) for address in (source, out)]
        return builder.call(builder.inttoptr(function, kind.as_pointer()), [pointers[0], *numbers, pointers[1]])

    return types.int32(*kinds), generate


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
def _inside(sample, window):
    """Whether the window lies in the image, as it does except beside a crop's black frame."""
    top, left, rows, cols, _, denominator = window
    height, width = _shrunk(sample.height, denominator), _shrunk(sample.width, denominator)
    return top >= 0 and left >= 0 and top + rows <= height and left + cols <= width


@numba.njit
def _scratch_bytes(samples, indices, windows):
    """Room for the largest of these images that has to be decoded whole."""
    largest = 0
    for i in range(len(indices)):
        if indices[i] >= 0 and samples[indices[i]].mode == JPEG:
            sample, denominator = samples[indices[i]], windows[i, 5]
            largest = max(largest, _shrunk(sample.height, denominator) * _shrunk(sample.width, denominator) * 3)
    return largest


@numba.njit
def _pixels(sample, window, window_decoder, scratch):
    """The image's pixels and where the window is in them: (status, pixels, height, width, top, left).

    Of a JPEG in `scratch`, and there nothing but the window where `window_decoder` decodes that alone.
    """
    top, left, rows, cols, _, denominator = window
    height, width = _shrunk(sample.height, denominator), _shrunk(sample.width, denominator)
    if sample.mode != JPEG:
        return 0, numba.carray(_pointer(sample.address), (height * width * 3,), np.uint8), height, width, top, left
    out = scratch.ctypes.data
    if window_decoder != 0 and _inside(sample, window):
        status = _decode_window(
            window_decoder,
            sample.address,
            sample.size,
            sample.height,
            sample.width,
            denominator,
            top,
            left,
            rows,
            cols,
            out,
        )
        return status, scratch, np.int64(rows), np.int64(cols), 0, 0
    whole = (sample.height, sample.width)
    status = _imdecode(sample.address, sample.size, *whole, out, *whole, 0, 0, 1, denominator, False, False)
    return status, scratch, height, width, top, left


@numba.njit(inline="never")
def _resize_area(source, height, width, top, left, rows, cols, flip, out):
    """As `_resize_window`, with FFCV's own filter."""
    size = out.shape[0]
    window = (top, top + rows, left, left + cols)
    _resize_by_ffcv(0, source.ctypes.data, height, width, *window, out.ctypes.data, size, size, _INTER_AREA)
    if flip:
        for row in range(size):
            for col in range(size // 2):
                for channel in range(3):
                    kept = out[row, col, channel]
                    out[row, col, channel] = out[row, size - 1 - col, channel]
                    out[row, size - 1 - col, channel] = kept


@cached_njit
def decode_windows(samples, indices, windows, window_decoder, area, out, status):
    """out[i] = the window windows[i] of image indices[i], resized to out's size.

    Args:
        samples: (N,) table of `beton.SAMPLE`.
        indices: (n,) int64; below 0: the output is black.
        windows: (n, 6) int32 of `Windows.packed`.
        window_decoder: address in `jpeg_window.WindowDecoder`.
        area: resize by FFCV's filter (OpenCV's INTER_AREA) in place of antialiased bilinear.
        out: (n, R, R, 3) uint8.
        status: (n,) int32; not 0 where the decoder complained, and then out[i] is undefined.
    """
    scratch = np.empty(_scratch_bytes(samples, indices, windows), np.uint8)
    for i in range(len(indices)):
        status[i] = 0
        if indices[i] < 0:
            out[i] = 0
            continue
        rows, cols, flip = windows[i, 2], windows[i, 3], windows[i, 4] != 0
        found = _pixels(samples[indices[i]], windows[i], window_decoder, scratch)
        status[i], source, height, width, top, left = found
        if status[i] != 0:
            continue
        if rows == out.shape[1] and cols == out.shape[2]:
            _copy_window(source, height, width, top, left, flip, out[i])
        elif area:
            _resize_area(source, height, width, top, left, rows, cols, flip, out[i])
        else:
            _resize_window(source, width, top, left, rows, cols, flip, out[i])


@cached_njit
def pack_windows(samples, indices, windows, window_decoder, offsets, packed, status):
    """The windows of images one after the other, for a GPU to resize and mirror.

    Args:
        samples, indices, window_decoder, status: as `decode_windows`.
        windows: (n, 6) int32 of `Windows.packed`.
        offsets: (n,) int64: packed[offsets[i]:] gets the (rows, cols, 3) pixels of windows[i], 0 outside of the image.
        packed: (bytes,) uint8.
    """
    scratch = np.empty(_scratch_bytes(samples, indices, windows), np.uint8)
    for i in range(len(indices)):
        status[i] = 0
        rows, cols = np.int64(windows[i, 2]), np.int64(windows[i, 3])
        line = cols * 3
        out = packed[offsets[i] : offsets[i] + rows * line]
        if indices[i] < 0:
            out[:] = 0
            continue
        sample = samples[indices[i]]
        alone = window_decoder != 0 and sample.mode == JPEG and _inside(sample, windows[i])
        found = _pixels(sample, windows[i], window_decoder, out if alone else scratch)
        status[i], source, height, width, top, left = found
        if status[i] != 0 or alone:
            continue
        if _inside(sample, windows[i]):
            for row in range(rows):
                start = ((top + row) * width + left) * 3
                out[row * line : (row + 1) * line] = source[start : start + line]
        else:
            _copy_window(source, height, width, top, left, False, out.reshape(rows, cols, 3))
