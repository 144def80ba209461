"""Position embeddings and relative position biases, and their resizing to another resolution."""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distcls.errors import ArgumentError


def fit_before_loading(module: nn.Module) -> None:
    """Call ``module.fit_position_embedding(state_dict, prefix)`` before every load_state_dict.

    `distcls.models.weights` calls that method itself, so that its report can name what was resized.
    """
    module.register_load_state_dict_pre_hook(_fit)


def _fit(module: Any, state_dict: MutableMapping[str, Tensor], prefix: str, *_: Any) -> None:
    module.fit_position_embedding(state_dict, prefix)


def sincos_2d(grid: tuple[int, int], width: int) -> Tensor:
    """A fixed embedding (1, rows * columns, width): sines and cosines of the column, then of the row.

    Each takes width / 4 frequencies, from 1 down to 1 / 10,000; after MoCo v3 (Chen et al. 2021) and big_vision.

    Raises:
        UserError: the width is no multiple of 4, or less than 8.
    """
    if width % 4 or width < 8:
        raise ArgumentError("position_embedding", f"sincos2d needs a width of 8, 12, 16 ..., got {width}")
    frequencies = 10_000 ** -(torch.arange(width // 4) / (width // 4 - 1))
    row, column = (
        place.flatten()[:, None] * frequencies
        for place in torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in grid), indexing="ij")
    )
    return torch.cat((column.sin(), column.cos(), row.sin(), row.cos()), dim=1)[None]


def resize_pos_embed(
    pos_embed: Tensor,
    src_shape: tuple[int, int],
    dst_shape: tuple[int, int],
    mode: str = "bicubic",
    num_extra_tokens: int = 1,
) -> Tensor:
    """(1, extra + h * w, C) learned on an h x w grid -> (1, extra + h' * w', C) by interpolation over the grid.

    Args:
        src_shape, dst_shape: (h, w) and (h', w').
        mode: of torch's interpolate.
        num_extra_tokens: class tokens in front of the grid; they stay as they are.
    """
    if src_shape == dst_shape:
        return pos_embed
    extra, grid = pos_embed[:, :num_extra_tokens], pos_embed[:, num_extra_tokens:]
    grid = grid.reshape(1, *src_shape, -1).permute(0, 3, 1, 2)
    # half precision has no bicubic interpolation on every device
    resized = F.interpolate(grid.float(), size=dst_shape, mode=mode, align_corners=False).to(grid.dtype)
    return torch.cat((extra, resized.flatten(2).transpose(1, 2)), dim=1)


def fit_pos_embed(
    state_dict: MutableMapping[str, Tensor],
    name: str,
    own: Tensor,
    grid: tuple[int, int],
    mode: str,
    num_extra_tokens: int,
) -> None:
    """Resize entry `name` to the shape of `own`, if it was learned on another square grid.

    If only one of entry and model has class tokens, the loader refuses the entry, except that a class token which the
    model does not have is cut off.

    Args:
        own: the model's embedding (1, num_extra_tokens + grid, C).
        grid: its rows and columns.
    """
    entry = state_dict.get(name)
    if entry is None or entry.shape == own.shape or entry.ndim != 3:
        return
    if num_extra_tokens == 0 and _side(entry.shape[1]) is None:
        entry = entry[:, 1:]
    side = _side(entry.shape[1] - num_extra_tokens)
    if side is not None:
        state_dict[name] = resize_pos_embed(entry, (side, side), grid, mode, num_extra_tokens)


def fit_relative_position_bias(state_dict: MutableMapping[str, Tensor], name: str, own: Tensor) -> None:
    """Resize the bias table `name` ((2w - 1)^2, heads) to another window size, bicubically.

    Swin's authors and timm interpolate in the same way; MMPretrain first spaces the samples geometrically.
    """
    entry = state_dict.get(name)
    if entry is None or entry.shape == own.shape or entry.shape[1:] != own.shape[1:]:
        return
    source, target = _side(entry.shape[0]), _side(own.shape[0])
    if source is not None and target is not None:
        table = resize_pos_embed(entry[None], (source, source), (target, target), num_extra_tokens=0)
        state_dict[name] = table[0]


def _side(positions: int) -> int | None:
    side = round(max(positions, 0) ** 0.5)
    return side if side * side == positions and side > 0 else None
