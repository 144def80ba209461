"""The compiled functions of decode_cpu.py: decode, crop, resize and flip images.

Single-threaded; the loader provides the threads. The arithmetic is IEEE float32 without contraction, so the pixels are
the same on every machine and for any number of threads. Nothing is allocated or raised, see compiled.py.
"""

# numba's types inside compiled functions are not Python's.
# mypy: ignore-errors

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distcls.data.beton.file_format import JPEG, SAMPLE
from distcls.data.decoding.interpolation import BICUBIC, FFCV_AREA
from distcls.data.decoding.resize_kernels import resize_bicubic, resize_bilinear

_compiled = numba.njit(error_model="numpy")

# int imdecode(source, size, height, width, out, crop_height, crop_width, x, y, scale_num, scale_denom, crop, flip)
_imdecode = types.ExternalFunction(
    "imdecode",
    types.int32(types.uintp, types.uint64, *[types.uint32] * 2, types.uintp, *[types.uint32] * 6, *[types.boolean] * 2),
)


@intrinsic
def _pointer(typing_context, address):
    """Cast an integer address to void *."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.uint64), generate


# void resize(_, source, height, width, first row, end row, first column, end column, out, rows, cols, interpolation)
# wraps OpenCV's. FFCV 1.0.2 lacks the last argument and always uses INTER_AREA; later versions expect its number, 3.
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


@_compiled
def _copy_window(source, height, width, top, left, flip, out):
    """Copy the R x R window at (top, left) of source (height * width * 3,) to out (R, R, 3); 0 outside the image."""
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


@_compiled
def _shrunk(length, denominator):
    """A scaled side length, rounded up as TurboJPEG does."""
    return (np.int64(length) + denominator - 1) // denominator


@_compiled
def _has_size(sample):
    """Whether the height and width in the JPEG's frame header are those of the sample table.

    FFCV's decoder does not check: on a mismatch it would scale the image or fill only some of the pixels.
    """
    data, at = numba.carray(_pointer(sample.address), sample.size, np.uint8), 2
    while at + 9 <= sample.size and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        # SOF0..SOF15, except DHT, JPG and DAC, whose codes lie in the same range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = data[at + 5] * 256 + data[at + 6], data[at + 7] * 256 + data[at + 8]
            return height == sample.height and width == sample.width
        at += 2 + data[at + 2] * 256 + data[at + 3]
    return False


@_compiled
def _inside(sample, window):
    """Whether the window lies inside the image; only a crop with padding may reach beyond it."""
    top, left, rows, cols, denominator = window[0], window[1], window[2], window[3], window[5]
    height, width = _shrunk(sample.height, denominator), _shrunk(sample.width, denominator)
    return top >= 0 and left >= 0 and top + rows <= height and left + cols <= width


@_compiled
def _pixels(sample, window, window_decoder, scratch):
    """Locate the image's pixels, and the window in them: (status, address, height, width, top, left).

    A JPEG is decoded into `scratch`: only the window where `window_decoder` can, else the whole image.
    """
    top, left, rows, cols, denominator = window[0], window[1], window[2], window[3], window[5]
    height, width = _shrunk(sample.height, denominator), _shrunk(sample.width, denominator)
    if sample.mode != JPEG:
        return 0, sample.address, height, width, top, left
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
            scratch,
        )
        return status, scratch, np.int64(rows), np.int64(cols), 0, 0
    if not _has_size(sample):
        return 1, scratch, height, width, top, left
    whole = (sample.height, sample.width)
    status = _imdecode(sample.address, sample.size, *whole, scratch, *whole, 0, 0, 1, denominator, False, False)
    return status, scratch, height, width, top, left


@_compiled
def _resize_area(source, height, width, top, left, rows, cols, flip, out):
    """As `resize_bilinear`, with OpenCV's INTER_AREA through FFCV."""
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


def _decode_windows(
    samples,
    indices,
    windows,
    window_decoder,
    interpolation,
    scratch,
    weights,
    taps,
    places,
    line,
    lines,
    out,
    number,
    size,
    status,
):
    samples, indices = numba.carray(samples, 1 << 40, SAMPLE), numba.carray(indices, number, np.int64)
    windows, status = numba.carray(windows, (number, 6), np.int32), numba.carray(status, number, np.int32)
    places, out = numba.carray(places, (4, size), np.int64), numba.carray(out, (number, size, size, 3), np.uint8)
    # bicubic uses the same memory for its integer weights and sums.
    whole, weights = (
        numba.carray(weights, (2, size, taps), np.int32),
        numba.carray(weights, (2, size, taps), np.float32),
    )
    sums, line = numba.carray(line, 1 << 40, np.int32), numba.carray(line, 1 << 40, np.float32)
    lines = numba.carray(lines, 1 << 40, np.uint8)
    for i in range(number):
        status[i] = 0
        if indices[i] < 0:
            out[i] = 0
            continue
        rows, cols, flip = windows[i, 2], windows[i, 3], windows[i, 4] != 0
        status[i], address, height, width, top, left = _pixels(samples[indices[i]], windows[i], window_decoder, scratch)
        if status[i] != 0:
            continue
        source = numba.carray(_pointer(address), height * width * 3, np.uint8)
        if rows == size and cols == size:
            _copy_window(source, height, width, top, left, flip, out[i])
        elif interpolation == FFCV_AREA:
            _resize_area(source, height, width, top, left, rows, cols, flip, out[i])
        elif interpolation == BICUBIC:
            resize_bicubic(source, width, top, left, rows, cols, flip, out[i], whole, places, lines, sums)
        else:
            resize_bilinear(source, width, top, left, rows, cols, flip, out[i], weights, places, line)


def _pack_windows(samples, indices, windows, window_decoder, scratch, offsets, packed, number, status):
    samples, indices = numba.carray(samples, 1 << 40, SAMPLE), numba.carray(indices, number, np.int64)
    windows, status = numba.carray(windows, (number, 6), np.int32), numba.carray(status, number, np.int32)
    offsets = numba.carray(offsets, number, np.int64)
    for i in range(number):
        status[i] = 0
        rows, cols = np.int64(windows[i, 2]), np.int64(windows[i, 3])
        place = packed + np.uint64(offsets[i])
        out = numba.carray(_pointer(place), (rows, cols, 3), np.uint8)
        if indices[i] < 0:
            out[:] = 0
            continue
        sample = samples[indices[i]]
        alone = window_decoder != 0 and sample.mode == JPEG and _inside(sample, windows[i])
        found = _pixels(sample, windows[i], window_decoder, place if alone else scratch)
        status[i], address, height, width, top, left = found
        if status[i] != 0 or alone:
            continue
        source = numba.carray(_pointer(address), height * width * 3, np.uint8)
        if _inside(sample, windows[i]):
            line = cols * 3
            for row in range(rows):
                start = ((top + row) * width + left) * 3
                target = numba.carray(_pointer(place + np.uint64(row * line)), line, np.uint8)
                for k in range(line):
                    target[k] = source[start + k]
        else:
            _copy_window(source, height, width, top, left, False, out)


# Arrays are passed by address: as a pointer where the function accesses them, as a number where it passes them on.
_array, _address, _number = types.voidptr, types.uint64, types.int64
_decode = (*[_array] * 3, _address, _number, _address, _array, _number, *[_array] * 4, *[_number] * 2, _array)
_pack = (*[_array] * 3, *[_address] * 2, _array, _address, _number, _array)
C_FUNCTIONS = {
    "decode_windows": (types.void(*_decode), _decode_windows),
    "pack_windows": (types.void(*_pack), _pack_windows),
}
