"""Self-attention within windows of a map, with a learned bias per relative position: the attention of Swin."""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distcls.errors import ArgumentError
from distcls.models.common.attention import split_heads
from distcls.models.common.drop_path import DropPath
from distcls.models.common.position_embedding import fit_before_loading, fit_relative_position_bias

#: Added to the attention logits between positions that share a shifted window but are not adjacent in the map.
APART = -100.0


class WindowMSA(nn.Module):
    """Windows (N, L, embed_dims) of L = height * width tokens -> the same. Names are MMPretrain's.

    Args:
        window_size: height and width.
        num_heads: of the attention.
        qkv_bias: queries, keys and values have a bias.
        qk_scale: factor of the products; None means 1 / sqrt(width of a head).
        attn_drop, proj_drop: probabilities to drop attention weights, elements of the output.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        embed_dims: int,
        window_size: tuple[int, int],
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qk_scale = qk_scale
        height, width = window_size
        table = torch.zeros((2 * height - 1) * (2 * width - 1), num_heads)
        self.relative_position_bias_table = nn.Parameter(table)
        row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        down, across = (n[:, None] - n[None] + size - 1 for n, size in ((row, height), (column, width)))
        self.register_buffer("relative_position_index", down * (2 * width - 1) + across)
        fit_before_loading(self)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.attn_drop = attn_drop
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows (N, L, C) -> (N, L, C).

        Args:
            mask: (W, L, L), added to the attention of windows 0 to W - 1 of every image; N is a multiple of W.
        """
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(len(x) // len(mask), 1, 1, 1)
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        dropout = self.attn_drop if self.training else 0.0
        # under autocast q and k are in half precision, and the bias must have their dtype
        x = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), dropout, scale=self.qk_scale)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))

    def fit_position_embedding(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
        """Resize a bias table of another window size; the index follows from the size alone."""
        fit_relative_position_bias(
            state_dict, f"{prefix}relative_position_bias_table", self.relative_position_bias_table
        )
        state_dict[f"{prefix}relative_position_index"] = self.relative_position_index


class ShiftWindowMSA(nn.Module):
    """Tokens (N, h * w, C) of an (h, w) map -> the same: attention within windows, which may be shifted cyclically.

    Args:
        window_size: height and width.
        shift_size: how far the windows are shifted, up and left; 0 does not shift.
        drop_path_rate: probability to drop the whole output of an image.
        pad_small_map: pad a map smaller than the window with zeros; False refuses it, and does not shift the window on
            a map of exactly its size.
        kwargs: as WindowMSA's.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int,
        shift_size: int = 0,
        drop_path_rate: float = 0.0,
        pad_small_map: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift_size = shift_size
        self.pad_small_map = pad_small_map
        self.w_msa = WindowMSA(embed_dims, (window_size, window_size), num_heads, **kwargs)
        self.drop = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        (height, width), window = grid, self.window_size
        smaller = min(grid) < window
        if smaller and not self.pad_small_map:
            raise ArgumentError(
                "SwinTransformer",
                f"a map of {height} x {width} is smaller than the window of {window}: "
                "set pad_small_map, take a smaller window_size or larger images",
            )
        shift = self.shift_size if min(grid) > window or self.pad_small_map else 0
        x = x.unflatten(1, grid)
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        padded = (x.shape[1], x.shape[2])
        mask = None
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
            mask = shift_mask(padded, window, shift, x.device)
        x = windows_to_map(self.w_msa(map_to_windows(x, window), mask), window, padded)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return self.drop(x[:, :height, :width].flatten(1, 2))


def map_to_windows(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) -> (N * H/window * W/window, window^2, C)."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # N, rows, window, columns, window, C
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def windows_to_map(x: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `map_to_windows` for a map of `size` (H, W)."""
    x = x.unflatten(0, (-1, size[0] // window, size[1] // window)).unflatten(3, (window, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def shift_mask(size: tuple[int, int], window: int, shift: int, device: torch.device) -> Tensor:
    """(windows, window^2, window^2): `APART` between positions that lay at opposite borders before the shift."""
    row, column = (torch.arange(n, device=device) for n in size)
    down, across = (
        (n >= length - window).long() + (n >= length - shift) for n, length in zip((row, column), size, strict=True)
    )
    region = map_to_windows((3 * down[:, None] + across)[None, :, :, None], window)[..., 0]
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, APART)
