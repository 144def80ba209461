"""Triton kernels of BatchNorm fused with the ReLU, shortcut sum or max pooling after it: forward.

ResNets on current GPUs are bound by memory traffic, so each map is read once for its statistics, and read once and
written once for the result. All sums are float32 in a fixed order, so that results are bitwise reproducible.
"""

# Triton's types are not Python's.
# mypy: ignore-errors

import triton
import triton.language as tl

from distcls.models.common.batch_norm.tiles import byte_tile, channels_of, first_of_tile, tile


@triton.jit
def moments(
    x, means, squares, rows, channels, rows_each,
    STAGES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations over rows_each rows per program: two tables (programs, channels).

    Sums differences from the first row, which avoids cancellation where the mean is large compared to the deviation.
    """
    part = tl.program_id(0)
    first = part.to(tl.int64) * rows_each
    last = tl.minimum(first + rows_each, rows)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    pivot = tl.load(x + first * channels + channel, mask=known, other=0).to(tl.float32)
    total = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32)
    square = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32)
    for start in tl.range(first, last, BLOCK_ROWS, num_stages=STAGES):
        offset, inside = tile(start, last, channels, BLOCK_ROWS, BLOCK_CHANNELS)
        value = tl.load(x + offset, mask=inside, other=0).to(tl.float32)
        value = tl.where(inside, value - pivot[None, :], 0.0)
        total += value
        square += value * value
    count = (last - first).to(tl.float32)
    total_sum = tl.sum(total, 0)
    tl.store(means + part * channels + channel, pivot + total_sum / count, mask=known)
    tl.store(squares + part * channels + channel, tl.sum(square, 0) - total_sum * total_sum / count, mask=known)


@triton.jit
def normalisation(
    means,
    squares,
    weight,
    bias,
    running_mean,
    running_var,
    table,
    parts,
    rows,
    channels,
    rows_each,
    eps,
    momentum,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Combine the parts of `moments` (Chan et al. 1979) and update the running statistics.

    table (4, channels): mean, 1 / deviation, scale and shift, with which the layer is ``scale * x + shift``.
    """
    zero = tl.zeros((BLOCK_PARTS, BLOCK_CHANNELS), tl.float32)
    mean_sum = zero
    for start in range(0, parts, BLOCK_PARTS):
        offset, inside = tile(start, parts, channels, BLOCK_PARTS, BLOCK_CHANNELS)
        count = _counts(start, parts, rows, rows_each, BLOCK_PARTS)
        mean_sum += count[:, None] * tl.load(means + offset, mask=inside, other=0)
    mean = tl.sum(mean_sum, 0) / rows
    square_sum = zero
    for start in range(0, parts, BLOCK_PARTS):
        offset, inside = tile(start, parts, channels, BLOCK_PARTS, BLOCK_CHANNELS)
        count = _counts(start, parts, rows, rows_each, BLOCK_PARTS)
        distance = tl.load(means + offset, mask=inside, other=0) - mean[None, :]
        square_sum += tl.load(squares + offset, mask=inside, other=0) + count[:, None] * distance * distance
    square = tl.sum(square_sum, 0)
    inverse = 1.0 / tl.sqrt(square / rows + eps)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    scale = inverse * tl.load(weight + channel, mask=known, other=0)
    tl.store(table + channel, mean, mask=known)
    tl.store(table + channels + channel, inverse, mask=known)
    tl.store(table + 2 * channels + channel, scale, mask=known)
    tl.store(table + 3 * channels + channel, tl.load(bias + channel, mask=known, other=0) - mean * scale, mask=known)
    old = tl.load(running_mean + channel, mask=known, other=0)
    tl.store(running_mean + channel, old + momentum * (mean - old), mask=known)
    old = tl.load(running_var + channel, mask=known, other=0)
    tl.store(running_var + channel, old + momentum * (square / (rows - 1) - old), mask=known)


@triton.jit
def _counts(start, parts, rows, rows_each, BLOCK_PARTS: tl.constexpr):
    """Number of rows of each of BLOCK_PARTS parts: the last one may be shorter."""
    part = start + tl.arange(0, BLOCK_PARTS)
    count = tl.minimum(rows - part.to(tl.int64) * rows_each, rows_each)
    return tl.where(part < parts, count, 0).to(tl.float32)


@triton.jit
def _relu(value):
    """As torch's ReLU, NaN for NaN: `tl.maximum` gives 0, which would hide that a run has diverged."""
    return tl.where(value < 0, 0.0, value)


@triton.jit
def forward(
    x,
    shortcut,
    table,
    shortcut_table,
    y,
    positive,
    rows,
    channels,
    ADD: tl.constexpr,
    SCALED: tl.constexpr,
    KEEP: tl.constexpr,
    DESCENDING: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """y = relu(scale * x + shift [+ shortcut]); with SCALED the shortcut is normalised by its own table.

    With KEEP stores in `positive` whether each value is positive: one bit per value, eight channels per byte.
    """
    first = first_of_tile(DESCENDING, BLOCK_ROWS)
    offset, inside = tile(first, rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    scale = tl.load(table + 2 * channels + channel, mask=known, other=0)
    shift = tl.load(table + 3 * channels + channel, mask=known, other=0)
    value = tl.load(x + offset, mask=inside, other=0).to(tl.float32) * scale[None, :] + shift[None, :]
    if ADD:
        other = tl.load(shortcut + offset, mask=inside, other=0).to(tl.float32)
        if SCALED:
            scale = tl.load(shortcut_table + 2 * channels + channel, mask=known, other=0)
            shift = tl.load(shortcut_table + 3 * channels + channel, mask=known, other=0)
            other = other * scale[None, :] + shift[None, :]
        value += other
    tl.store(y + offset, _relu(value).to(y.dtype.element_ty), mask=inside)
    if KEEP:
        bits = tl.reshape((value > 0).to(tl.int32), (BLOCK_ROWS, BLOCK_CHANNELS // 8, 8))
        byte = tl.sum(bits << tl.arange(0, 8)[None, None, :], 2).to(tl.uint8)
        place, within = byte_tile(first, rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
        tl.store(positive + place, byte, mask=within)


@triton.jit
def forward_pooled(
    x, table, y, index, rows, channels, height, width, pooled_height, pooled_width,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = max pooling (3x3, stride 2, padding 1) of relu(scale * x + shift); index = which of the nine pixels it was.

    rows: of y. The normalised map itself is never written.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_ROWS
    offset, inside = tile(first, rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    row = first + tl.arange(0, BLOCK_ROWS)
    column = row % pooled_width
    line = (row // pooled_width) % pooled_height
    image = row // (pooled_width * pooled_height)
    scale = tl.load(table + 2 * channels + channel, mask=known, other=0)
    shift = tl.load(table + 3 * channels + channel, mask=known, other=0)
    best = tl.full((BLOCK_ROWS, BLOCK_CHANNELS), -1.0, tl.float32)
    winner = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.int32)
    for tap in tl.static_range(9):
        source_line = 2 * line - 1 + tap // 3
        source_column = 2 * column - 1 + tap % 3
        real = (source_line >= 0) & (source_line < height) & (source_column >= 0) & (source_column < width)
        source = ((image * height + source_line) * width + source_column)[:, None].to(tl.int64) * channels
        needed = inside & real[:, None]
        value = tl.load(x + source + channel[None, :], mask=needed, other=0).to(tl.float32)
        value = tl.where(needed, _relu(value * scale[None, :] + shift[None, :]), -1.0)
        wins = (value > best) | (value != value)
        winner = tl.where(wins, tap, winner)
        best = tl.where(wins, value, best)
    tl.store(y + offset, best.to(y.dtype.element_ty), mask=inside)
    tl.store(index + offset, winner.to(tl.uint8), mask=inside)
