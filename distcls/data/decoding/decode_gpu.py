"""One Triton kernel from packed windows to normalised channels-last images: resize, flip, normalise.

The filters are those of decode_cpu.py (see interpolation.py), but without rounding to 8 bits before normalising.
"""

# Triton's types are not Python's.
# mypy: ignore-errors

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from distcls.data.decoding.interpolation import Interpolation

_BLOCK = 256  # output pixels per program


@triton.jit
def _weight(place, centre, stretch, CUBIC: tl.constexpr):
    """Unnormalised filter weight of input pixel `place`; the same function as `resize_kernels._weight`."""
    away = tl.abs(place.to(tl.float32) + 0.5 - centre) / stretch
    if CUBIC:
        near = (1.5 * away - 2.5) * away * away + 1.0
        far = ((2.5 - 0.5 * away) * away - 4.0) * away + 2.0
        weight = tl.where(away < 1.0, near, tl.where(away < 2.0, far, 0.0))
    else:
        weight = tl.maximum(1.0 - away, 0.0)
    return weight


@triton.jit
def _area_start(i, length, size, shrinks):
    """First input pixel of output pixel i and, when enlarging, the share of the next pixel blended with it."""
    enlarged = size / length.to(tl.float64)
    first = tl.floor(i * (1.0 / enlarged)).to(tl.int32)
    share = ((i + 1) - (first + 1) * enlarged).to(tl.float32)
    share = tl.where(share <= 0, 0.0, share - tl.floor(share))
    return tl.where(shrinks, i * length // size, first), share


@triton.jit
def _area(place, i, length, size, shrinks, first, share):
    """Weight of input pixel `place` for output pixel i: `resize_plain._area_filter` up to a constant factor."""
    covered = tl.minimum((i + 1) * length, (place + 1) * size) - tl.maximum(i * length, place * size)
    blended = tl.where(place == first, 1.0 - share, tl.where(place == first + 1, share, 0.0))
    return tl.where(shrinks, tl.maximum(covered, 0).to(tl.float32), blended)


@triton.jit
def _nothing(BLOCK: tl.constexpr):
    """Zero-initialised accumulator."""
    return tl.zeros((BLOCK,), tl.float32)


@triton.jit
def _cut_off(level):
    """Clamp to [0, 255]."""
    return tl.minimum(tl.maximum(level, 0.0), 255.0)


@triton.jit
def _resize(
    packed, table, out, size, mean0, mean1, mean2, scale0, scale1, scale2, FILTER: tl.constexpr, BLOCK: tl.constexpr
):
    """Program (i, k) writes pixels [k * BLOCK, (k + 1) * BLOCK) of image i of out (N, size, size, 3).

    FILTER is an `Interpolation`; `table` is laid out as in packed.py.
    """
    AREA: tl.constexpr = FILTER == "ffcv_area"
    CUBIC: tl.constexpr = FILTER == "bicubic"
    image = tl.program_id(0).to(tl.int64)
    row_of_table = table + image * 7
    start = packed + tl.load(row_of_table)
    rows = tl.load(row_of_table + 1).to(tl.int32)
    cols = tl.load(row_of_table + 2).to(tl.int32)
    flip = tl.load(row_of_table + 3)
    line = tl.load(row_of_table + 4)
    beside = tl.load(row_of_table + 5)
    channel = tl.load(row_of_table + 6)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size * size
    row = place // size
    col = place % size
    col = tl.where(flip != 0, size - 1 - col, col)

    step_y = rows.to(tl.float32) / size
    step_x = cols.to(tl.float32) / size
    stretch_y = tl.maximum(step_y, 1.0)
    stretch_x = tl.maximum(step_x, 1.0)
    support_y = 2 * stretch_y if CUBIC else stretch_y
    support_x = 2 * stretch_x if CUBIC else stretch_x
    centre_y = (row.to(tl.float32) + 0.5) * step_y
    centre_x = (col.to(tl.float32) + 0.5) * step_x
    shrinks = (rows >= size) & (cols >= size)
    if AREA:
        first_y, share_y = _area_start(row, rows, size, shrinks)
        first_x, share_x = _area_start(col, cols, size, shrinks)
        taps_y = rows // size + 2
        taps_x = cols // size + 2
    else:
        first_y = tl.maximum((centre_y - support_y + 0.5).to(tl.int32), 0)
        first_x = tl.maximum((centre_x - support_x + 0.5).to(tl.int32), 0)
        taps_y = (2 * support_y).to(tl.int32) + 2
        taps_x = (2 * support_x).to(tl.int32) + 2

    red, green, blue, total = _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK)
    for tap_y in range(taps_y):
        y = first_y + tap_y
        if AREA:
            weight_y = _area(y, row, rows, size, shrinks, first_y, share_y)
        else:
            weight_y = _weight(y, centre_y, stretch_y, CUBIC)
        weight_y = tl.where(y < rows, weight_y, 0.0)
        if CUBIC:  # sum this row on its own, since it is clamped before the rows are combined
            above = (red, green, blue, total)
            red, green, blue, total = _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK)
        for tap_x in range(taps_x):
            x = first_x + tap_x
            if AREA:
                weight_x = _area(x, col, cols, size, shrinks, first_x, share_x)
            else:
                weight_x = _weight(x, centre_x, stretch_x, CUBIC)
            weight_x = tl.where(x < cols, weight_x, 0.0)
            weight = weight_y * weight_x
            pixel = start + y * line + x * beside
            needed = inside & (weight != 0.0)
            if CUBIC:
                weight = weight_x
            red += weight * tl.load(pixel, mask=needed, other=0).to(tl.float32)
            green += weight * tl.load(pixel + channel, mask=needed, other=0).to(tl.float32)
            blue += weight * tl.load(pixel + 2 * channel, mask=needed, other=0).to(tl.float32)
            total += weight
        if CUBIC:  # overshoots [0, 255]: as Pillow, clamp after the horizontal and again after the vertical pass
            red = above[0] + weight_y * _cut_off(red / total)
            green = above[1] + weight_y * _cut_off(green / total)
            blue = above[2] + weight_y * _cut_off(blue / total)
            total = above[3] + weight_y
    red, green, blue = red / total, green / total, blue / total
    if CUBIC:
        red, green, blue = _cut_off(red), _cut_off(green), _cut_off(blue)

    target = out + (image * size * size + place) * 3
    kind = out.dtype.element_ty
    tl.store(target, ((red - mean0) * scale0).to(kind), mask=inside)
    tl.store(target + 1, ((green - mean1) * scale1).to(kind), mask=inside)
    tl.store(target + 2, ((blue - mean2) * scale2).to(kind), mask=inside)


def resize_windows(
    packed: torch.Tensor,
    table: torch.Tensor,
    resolution: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    *,
    interpolation: Interpolation = "bilinear",
) -> torch.Tensor:
    """Resize packed windows to normalised images on the current stream; arguments and result as `resize_plainly`.

    A new resolution needs no recompilation.
    """
    out = torch.empty((len(table), resolution, resolution, 3), dtype=dtype, device=packed.device)
    grid = (len(table), triton.cdiv(resolution * resolution, _BLOCK))
    means = [255 * value for value in mean]
    scales = [1 / (255 * value) for value in std]
    with torch.cuda.device_of(packed):  # Triton launches on the current device, which may differ from the loader's
        _resize[grid](packed, table, out, resolution, *means, *scales, FILTER=interpolation, BLOCK=_BLOCK)
    return out.permute(0, 3, 1, 2)
