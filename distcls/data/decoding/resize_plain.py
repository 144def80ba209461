"""The GPU kernel's computation in plain torch: runs on any machine and is the tests' reference."""

from collections.abc import Sequence

import torch

from distcls.data.decoding.interpolation import Interpolation


def resize_plainly(
    packed: torch.Tensor,
    table: torch.Tensor,
    resolution: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    *,
    interpolation: Interpolation = "bilinear",
) -> torch.Tensor:
    """Compute what the GPU kernel computes, in plain torch, image by image.

    Args:
        packed: (bytes,) uint8.
        table: (N, 7) int64, see the docstring of packed.py; here all windows lie in the storage of `packed`.
        resolution: R.
        mean, std: per channel on the scale 0..1.
        dtype: of the result; computed in float32.
        interpolation: the resize filter.

    Returns:
        (N, 3, R, R) in channels-last memory, normalised.
    """
    out = torch.empty((len(table), resolution, resolution, 3), dtype=dtype, device=packed.device)
    scale = 1 / (255 * torch.tensor(std, device=packed.device))
    shift = 255 * torch.tensor(mean, device=packed.device)
    for image, (offset, rows, cols, flip, *strides) in zip(out, table.tolist(), strict=True):
        pixels = packed.as_strided((rows, cols, 3), strides, packed.storage_offset() + offset).float()
        if interpolation == "ffcv_area":
            shrinks = min(rows, cols) >= resolution
            down, across = (_area_filter(length, resolution, shrinks, packed.device) for length in (rows, cols))
        else:
            cubic = interpolation == "bicubic"
            down, across = (_filter(length, resolution, cubic, packed.device) for length in (rows, cols))
        across = across.flip(0) if flip else across
        if interpolation == "bicubic":  # overshoots [0, 255]: as Pillow, clamp after each pass
            lines = torch.einsum("jx,yxc->yjc", across, pixels).clamp(0, 255)
            resized = torch.einsum("iy,yjc->ijc", down, lines).clamp(0, 255)
        else:
            lines = torch.einsum("iy,yxc->ixc", down, pixels)
            resized = torch.einsum("jx,ixc->ijc", across, lines)
        image.copy_((resized - shift) * scale)
    return out.permute(0, 3, 1, 2)


def _filter(length: int, size: int, cubic: bool, device: torch.device) -> torch.Tensor:
    """The antialiased filter of `resize_kernels._weigh` as a (size, length) matrix."""
    stretch = max(length / size, 1.0)
    centres = (torch.arange(size, device=device, dtype=torch.float64)[:, None] + 0.5) * (length / size)
    places = torch.arange(length, device=device, dtype=torch.float64)[None] + 0.5
    away = (places - centres).abs() / stretch
    if cubic:
        near = (1.5 * away - 2.5) * away**2 + 1
        far = ((2.5 - 0.5 * away) * away - 4) * away + 2
        weights = torch.where(away < 1, near, torch.where(away < 2, far, 0))
    else:
        weights = (1 - away).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def _area_filter(length: int, size: int, shrinks: bool, device: torch.device) -> torch.Tensor:
    """OpenCV's INTER_AREA as a (size, length) matrix.

    Shrinking: each output pixel is the mean over the part of the input that it covers. If either axis is enlarged, both
    axes are interpolated instead: an output pixel copies one input pixel, or blends two where it straddles their
    border. That branch follows OpenCV's arithmetic exactly, because at whole-numbered borders rounding picks the pixel.
    """
    i = torch.arange(size, device=device)[:, None]
    x = torch.arange(length, device=device)[None]
    if shrinks:  # in units of 1 / size of an input pixel, where all edges are whole numbers
        covered = torch.minimum((i + 1) * length, (x + 1) * size) - torch.maximum(i * length, x * size)
        return covered.clamp(min=0).double().div(length).float()
    enlarged = torch.tensor(size / length, dtype=torch.float64, device=device)
    first = (i * (1 / enlarged)).floor()
    share = ((i + 1) - (first + 1) * enlarged).float()
    share = torch.where(share <= 0, 0, share - share.floor())
    second = (first + 1).clamp(max=length - 1)
    return (x == first) * (1 - share) + (x == second) * share
