"""Pillow's filters, compiled: the resizing part of kernels.py.

bilinear is computed in float32 and rounded once. bicubic overshoots at edges, where the result depends on when it is
clamped, so it follows Pillow bit for bit: rows first, clamped and rounded to 8 bits, then columns, both in fixed-point
arithmetic in units of 2^-22.
"""

# numba's types inside compiled functions are not Python's.
# mypy: ignore-errors

import numba
import numpy as np

_compiled = numba.njit(error_model="numpy")

_BITS = 22  # fractional bits of bicubic's fixed-point weights
_HALF = 1 << (_BITS - 1)


@_compiled
def _weight(x, cubic):
    """The filter at x, not normalised: a triangle, or Keys' cubic (1981) with a = -0.5."""
    x = abs(x)
    if not cubic:
        return max(1.0 - x, 0.0)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0


@_compiled
def _weigh(cubic, length, size, first, count, weights):
    """Weights of the antialiased filter along one axis, `length` pixels -> `size`.

    Fills and returns first (size,), count (size,) and weights (size, taps): output i = sum over t < count[i] of
    weights[i, t] * input[first[i] + t]. Weights are float32; for bicubic int32, in units of 2^-22.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch if cubic else stretch
    for i in range(size):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), length)
        total = 0.0
        for t in range(low, high):
            total += _weight((t - centre + 0.5) / stretch, cubic)
        for t in range(low, high):
            weight = _weight((t - centre + 0.5) / stretch, cubic) / total
            # Storing to int32 truncates; adding 0.5 with the weight's sign rounds to nearest.
            weights[i, t - low] = weight * (1 << _BITS) + np.copysign(0.5, weight) if cubic else weight
        first[i] = low
        count[i] = high - low
    return first, count, weights


@_compiled
def resize_bilinear(source, width, top, left, rows, cols, flip, out, weights, places, line):
    """Resize the (rows, cols) window at (top, left) of source (height * width * 3,) into out (R, R, 3).

    `weights`, `places` and `line` are scratch buffers, see `decode_cpu.decode_windows`.
    """
    size = out.shape[0]
    first_row, row_count, row_weights = _weigh(False, rows, size, places[0], places[1], weights[0])
    first_col, col_count, col_weights = _weigh(False, cols, size, places[2], places[3], weights[1])
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


@_compiled
def _level(total):
    """Convert a fixed-point sum in units of 2^-22 to uint8, clamped."""
    return np.uint8(min(max(total >> _BITS, 0), 255))


@_compiled
def resize_bicubic(source, width, top, left, rows, cols, flip, out, weights, places, lines, sums):
    """As `resize_bilinear`; `lines` (rows, R, 3) uint8 and `sums` (3 R,) int32 are scratch buffers as well."""
    size = out.shape[0]
    first_row, row_count, row_weights = _weigh(True, rows, size, places[0], places[1], weights[0])
    first_col, col_count, col_weights = _weigh(True, cols, size, places[2], places[3], weights[1])
    for y in range(rows):
        start = ((top + y) * width + left) * 3
        for j in range(size):
            red = green = blue = np.int32(_HALF)
            at = start + first_col[j] * 3
            for t in range(col_count[j]):
                weight = col_weights[j, t]
                red += weight * source[at]
                green += weight * source[at + 1]
                blue += weight * source[at + 2]
                at += 3
            at = (y * size + (size - 1 - j if flip else j)) * 3
            lines[at] = _level(red)
            lines[at + 1] = _level(green)
            lines[at + 2] = _level(blue)
    for i in range(size):
        for k in range(3 * size):
            sums[k] = _HALF
        for t in range(row_count[i]):
            weight = row_weights[i, t]
            start = (first_row[i] + t) * size * 3
            line = lines[start : start + size * 3]
            for k in range(3 * size):
                sums[k] += weight * line[k]
        for j in range(size):
            for channel in range(3):
                out[i, j, channel] = _level(sums[3 * j + channel])
