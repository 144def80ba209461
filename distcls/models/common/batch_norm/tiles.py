"""Tiles of a channels-last map viewed as a rows x channels matrix."""

# Triton's types are not Python's.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def first_of_tile(DESCENDING: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """The first row of this program's tile.

    DESCENDING: start with the map's end, so that its beginning stays in the L2 cache.
    """
    place = tl.program_id(0).to(tl.int64)
    if DESCENDING:
        place = tl.num_programs(0) - 1 - place
    return place * BLOCK_ROWS


@triton.jit
def channels_of(channels, BLOCK_CHANNELS: tl.constexpr):
    """The channels of this program's second index, and the mask of those that exist."""
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    return channel, channel < channels


@triton.jit
def tile(first_row, last_row, channels, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """Offsets and mask of BLOCK_ROWS rows from first_row, of the channels of this program's second index."""
    row = first_row + tl.arange(0, BLOCK_ROWS)
    channel, known = channels_of(channels, BLOCK_CHANNELS)
    inside = (row < last_row)[:, None] & known[None, :]
    return row[:, None].to(tl.int64) * channels + channel[None, :], inside


@triton.jit
def byte_tile(first_row, last_row, channels, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """Offsets and mask of a tile of `positive`."""
    row = first_row + tl.arange(0, BLOCK_ROWS)
    byte = tl.program_id(1) * (BLOCK_CHANNELS // 8) + tl.arange(0, BLOCK_CHANNELS // 8)
    inside = (row < last_row)[:, None] & (byte < channels // 8)[None, :]
    return row[:, None].to(tl.int64) * (channels // 8) + byte[None, :], inside
