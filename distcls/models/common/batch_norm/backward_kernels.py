"""Triton kernels of fused BatchNorm: backward.

Two passes: one reduction over gradient and input, then the input's gradient. All sums are float32 in a fixed order.
"""

# Triton's types are not Python's.
# mypy: ignore-errors

import triton
import triton.language as tl

from distcls.models.common.batch_norm.tiles import byte_tile, channels_of, first_of_tile, tile


@triton.jit
def unpooled(
    gradient, gradient2, index, out, windows, channels, height, width, pooled_height, pooled_width,
    TWO: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient of the map before a 3x3 max pooling of stride 2 and padding 1; with TWO for gradient + gradient2.

    A row is a pooling window. It writes four pixels: its centre and those to the right, below and diagonally below,
    which lie in up to four windows: this one and its neighbours in those directions. `index` tells which of its nine
    pixels was a window's maximum.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_ROWS
    row = first + tl.arange(0, BLOCK_ROWS)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    column = row % pooled_width
    line = (row // pooled_width) % pooled_height
    image = row // (pooled_width * pooled_height)
    real = row < windows
    right = real & (column + 1 < pooled_width)
    below = real & (line + 1 < pooled_height)
    here, won_here = _window(gradient, gradient2, index, row, real, channel, known, channels, TWO)
    east, won_east = _window(gradient, gradient2, index, row + 1, right, channel, known, channels, TWO)
    south, won_south = _window(gradient, gradient2, index, row + pooled_width, below, channel, known, channels, TWO)
    corner, won_corner = _window(
        gradient, gradient2, index, row + pooled_width + 1, right & below, channel, known, channels, TWO
    )
    # a window's nine pixels are numbered row by row; its centre is number 4
    straight = tl.where(won_here == 4, here, 0.0)
    beside = tl.where(won_here == 5, here, 0.0) + tl.where(won_east == 3, east, 0.0)
    under = tl.where(won_here == 7, here, 0.0) + tl.where(won_south == 1, south, 0.0)
    across = tl.where(won_here == 8, here, 0.0) + tl.where(won_east == 6, east, 0.0)
    across += tl.where(won_south == 2, south, 0.0) + tl.where(won_corner == 0, corner, 0.0)
    pixel = (image * height + 2 * line) * width + 2 * column
    right = real & (2 * column + 1 < width)
    below = real & (2 * line + 1 < height)
    _put(out, pixel, straight, real, channel, known, channels)
    _put(out, pixel + 1, beside, right, channel, known, channels)
    _put(out, pixel + width, under, below, channel, known, channels)
    _put(out, pixel + width + 1, across, right & below, channel, known, channels)


@triton.jit
def _window(gradient, gradient2, index, row, real, channel, known, channels, TWO: tl.constexpr):
    """Gradient of the windows `row` and the number of the pixel that was their maximum; 0 and 255 outside the map."""
    place = row[:, None] * channels + channel[None, :]
    inside = real[:, None] & known[None, :]
    value = tl.load(gradient + place, mask=inside, other=0).to(tl.float32)
    if TWO:
        value += tl.load(gradient2 + place, mask=inside, other=0).to(tl.float32)
    return value, tl.load(index + place, mask=inside, other=255)


@triton.jit
def _put(out, row, value, real, channel, known, channels):
    place = row[:, None] * channels + channel[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask=real[:, None] & known[None, :])


@triton.jit
def backward_sums(
    gradient, gradient2, x, shortcut, positive, table, shortcut_table, joined, sums, products, shortcut_products,
    rows, channels, rows_each,
    ADD: tl.constexpr, TWO: tl.constexpr, SCALED: tl.constexpr, STAGES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Partial sums of g and of g * (x - mean), where g is the gradient of the ReLU's input.

    g is gradient (with TWO: + gradient2) where scale * x + shift > 0. With ADD it is masked by the bits of `positive`
    instead and written to `joined`, since it is also the shortcut's gradient. With SCALED also sums
    g * (shortcut - its mean).
    """
    part = tl.program_id(0)
    first = part.to(tl.int64) * rows_each
    last = tl.minimum(first + rows_each, rows)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    mean = tl.load(table + channel, mask=known, other=0)
    scale = tl.load(table + 2 * channels + channel, mask=known, other=0)
    shift = tl.load(table + 3 * channels + channel, mask=known, other=0)
    total = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32)
    product = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32)
    if SCALED:
        shortcut_mean = tl.load(shortcut_table + channel, mask=known, other=0)
        shortcut_product = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32)
    for start in tl.range(first, last, BLOCK_ROWS, num_stages=STAGES):
        offset, inside = tile(start, last, channels, BLOCK_ROWS, BLOCK_CHANNELS)
        value = tl.load(x + offset, mask=inside, other=0).to(tl.float32)
        g = tl.load(gradient + offset, mask=inside, other=0).to(tl.float32)
        if TWO:
            g += tl.load(gradient2 + offset, mask=inside, other=0).to(tl.float32)
        if ADD:
            place, within = byte_tile(start, last, channels, BLOCK_ROWS, BLOCK_CHANNELS)
            byte = tl.load(positive + place, mask=within, other=0).to(tl.int32)
            bits = (byte[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
            half = tl.where(tl.reshape(bits, (BLOCK_ROWS, BLOCK_CHANNELS)) != 0, g, 0.0).to(joined.dtype.element_ty)
            tl.store(joined + offset, half, mask=inside)
            g = half.to(tl.float32)
        else:
            g = tl.where(inside & (value * scale[None, :] + shift[None, :] > 0), g, 0.0)
        total += g
        product += g * (value - mean[None, :])
        if SCALED:
            value = tl.load(shortcut + offset, mask=inside, other=0).to(tl.float32)
            shortcut_product += g * (value - shortcut_mean[None, :])
    if SCALED:
        tl.store(shortcut_products + part * channels + channel, tl.sum(shortcut_product, 0), mask=known)
    tl.store(sums + part * channels + channel, tl.sum(total, 0), mask=known)
    tl.store(products + part * channels + channel, tl.sum(product, 0), mask=known)


@triton.jit
def backward_factors(
    sums, products, weight, table, factors, parts, rows, channels,
    BLOCK_PARTS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """factors (5, channels): a, b, c of the input's gradient ``a * g + b * x + c``; gradients of weight and bias."""
    total = tl.zeros((BLOCK_PARTS, BLOCK_CHANNELS), tl.float32)
    product = tl.zeros((BLOCK_PARTS, BLOCK_CHANNELS), tl.float32)
    for start in range(0, parts, BLOCK_PARTS):
        offset, inside = tile(start, parts, channels, BLOCK_PARTS, BLOCK_CHANNELS)
        total += tl.load(sums + offset, mask=inside, other=0)
        product += tl.load(products + offset, mask=inside, other=0)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    sum_g = tl.sum(total, 0)
    sum_gx = tl.sum(product, 0)
    mean = tl.load(table + channel, mask=known, other=0)
    inverse = tl.load(table + channels + channel, mask=known, other=0)
    a = inverse * tl.load(weight + channel, mask=known, other=0)
    b = -a * inverse * inverse * sum_gx / rows
    tl.store(factors + channel, a, mask=known)
    tl.store(factors + channels + channel, b, mask=known)
    tl.store(factors + 2 * channels + channel, -b * mean - a * sum_g / rows, mask=known)
    tl.store(factors + 3 * channels + channel, inverse * sum_gx, mask=known)
    tl.store(factors + 4 * channels + channel, sum_g, mask=known)


@triton.jit
def backward(
    gradient, gradient2, x, table, factors, out, shortcut, shortcut_factors, shortcut_out, rows, channels,
    ADD: tl.constexpr, TWO: tl.constexpr, SCALED: tl.constexpr, DESCENDING: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """out = a * g + b * x + c, with g of `backward_sums`, which has already written it in the case of ADD.

    With SCALED the same for the shortcut, with its own factors.
    """
    first = first_of_tile(DESCENDING, BLOCK_ROWS)
    offset, inside = tile(first, rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    value = tl.load(x + offset, mask=inside, other=0).to(tl.float32)
    g = tl.load(gradient + offset, mask=inside, other=0).to(tl.float32)
    if TWO:
        g += tl.load(gradient2 + offset, mask=inside, other=0).to(tl.float32)
    if not ADD:
        scale = tl.load(table + 2 * channels + channel, mask=known, other=0)
        shift = tl.load(table + 3 * channels + channel, mask=known, other=0)
        g = tl.where(value * scale[None, :] + shift[None, :] > 0, g, 0.0)
    _put_gradient(out, g, value, factors, offset, inside, channel, known, channels)
    if SCALED:
        value = tl.load(shortcut + offset, mask=inside, other=0).to(tl.float32)
        _put_gradient(shortcut_out, g, value, shortcut_factors, offset, inside, channel, known, channels)


@triton.jit
def _put_gradient(out, g, value, factors, offset, inside, channel, known, channels):
    a = tl.load(factors + channel, mask=known, other=0)
    b = tl.load(factors + channels + channel, mask=known, other=0)
    c = tl.load(factors + 2 * channels + channel, mask=known, other=0)
    result = a[None, :] * g + b[None, :] * value + c[None, :]
    tl.store(out + offset, result.to(out.dtype.element_ty), mask=inside)
