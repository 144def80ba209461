"""Triton kernels of BatchNorm with what is behind it: backward.

Two passes: one reduction over gradient and input, then the input's gradient. All sums are float32 in a fixed order.
"""

# Triton's types are not Python's.
# mypy: ignore-errors

import triton
import triton.language as tl

from distcls.models.common.batch_norm.tiles import byte_tile, channels_of, tile


@triton.jit
def _pooled(
    gradient, gradient2, index, row, channel, inside, channels, height, width, pooled_height, pooled_width,
    TWO: tl.constexpr,
):  # fmt: skip
    """Gradient at rows of the map before a 3x3 max pooling of stride 2 and padding 1: of the up to four windows that
    a pixel lies in, those whose maximum it was."""
    column = row % width
    line = (row // width) % height
    image = row // (width * height)
    total = tl.zeros(inside.shape, tl.float32)
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            window_line = (line + 1) // 2 - down
            window_column = (column + 1) // 2 - right
            tap_line = line + 1 - 2 * window_line
            tap_column = column + 1 - 2 * window_column
            real = (window_line >= 0) & (window_line < pooled_height) & (tap_line < 3)
            real = real & (window_column >= 0) & (window_column < pooled_width) & (tap_column < 3)
            window = (image * pooled_height + window_line) * pooled_width + window_column
            place = window[:, None].to(tl.int64) * channels + channel[None, :]
            needed = inside & real[:, None]
            winner = tl.load(index + place, mask=needed, other=255).to(tl.int32)
            won = needed & (winner == (3 * tap_line + tap_column)[:, None])
            total += tl.load(gradient + place, mask=won, other=0).to(tl.float32)
            if TWO:
                total += tl.load(gradient2 + place, mask=won, other=0).to(tl.float32)
    return total


@triton.jit
def backward_sums(
    gradient, gradient2, x, shortcut, positive, table, shortcut_table, index, joined, sums, products, shortcut_products,
    rows, channels, rows_each, height, width, pooled_height, pooled_width,
    KIND: tl.constexpr, TWO: tl.constexpr, SCALED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Per part the sums of g and of g * (x - mean), g being the gradient behind the ReLU.

    KIND "relu": g = gradient where scale * x + shift > 0. "add": g = gradient (with TWO: + gradient2) where `positive`
    says so; it is written to `joined`, being the shortcut's gradient too; with SCALED also the sums of
    g * (shortcut - its mean). "pool": as "relu", through the max pooling.
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
    for start in range(first, last, BLOCK_ROWS):
        offset, inside = tile(start, last, channels, BLOCK_ROWS, BLOCK_CHANNELS)
        value = tl.load(x + offset, mask=inside, other=0).to(tl.float32)
        if KIND == "pool":
            row = start + tl.arange(0, BLOCK_ROWS)
            g = _pooled(
            gradient, gradient2, index, row, channel, inside, channels,
            height, width, pooled_height, pooled_width, TWO,
        )  # fmt: skip
        else:
            g = tl.load(gradient + offset, mask=inside, other=0).to(tl.float32)
            if TWO:
                g += tl.load(gradient2 + offset, mask=inside, other=0).to(tl.float32)
        if KIND == "add":
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
    """factors (5, channels): a, b, c of the input's gradient ``a * g + b * x + c``, and those of weight and bias."""
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
    gradient, gradient2, x, table, index, factors, out, rows, channels, height, width, pooled_height, pooled_width,
    KIND: tl.constexpr, TWO: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """out = a * g + b * x + c; g as in `backward_sums`, where KIND "add" has already written it."""
    first = tl.program_id(0).to(tl.int64) * BLOCK_ROWS
    offset, inside = tile(first, rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    value = tl.load(x + offset, mask=inside, other=0).to(tl.float32)
    if KIND == "pool":
        row = first + tl.arange(0, BLOCK_ROWS)
        g = _pooled(
            gradient, gradient2, index, row, channel, inside, channels,
            height, width, pooled_height, pooled_width, TWO,
        )  # fmt: skip
    else:
        g = tl.load(gradient + offset, mask=inside, other=0).to(tl.float32)
        if TWO:
            g += tl.load(gradient2 + offset, mask=inside, other=0).to(tl.float32)
    if KIND != "add":
        scale = tl.load(table + 2 * channels + channel, mask=known, other=0)
        shift = tl.load(table + 3 * channels + channel, mask=known, other=0)
        g = tl.where(value * scale[None, :] + shift[None, :] > 0, g, 0.0)
    a = tl.load(factors + channel, mask=known, other=0)
    b = tl.load(factors + channels + channel, mask=known, other=0)
    c = tl.load(factors + 2 * channels + channel, mask=known, other=0)
    result = a[None, :] * g + b[None, :] * value + c[None, :]
    tl.store(out + offset, result.to(out.dtype.element_ty), mask=inside)
