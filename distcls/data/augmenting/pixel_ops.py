"""What colour and shape augmentations do to a batch of images, each image with an amount of its own.

Images are (n, 3, R, R) floats that hold whole numbers 0..255. Every operation rounds its result as torchvision's
kernels for uint8 do, so chains of them agree with torchvision's. Sums over pixels are sums of whole numbers: an image's
result does not depend on the batch around it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _each(amount: Tensor) -> Tensor:
    return amount.view(-1, 1, 1, 1)


def _blend(images: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
    return (images * _each(ratio) + other * _each(1 - ratio)).clamp_(0, 255).floor_()


def gray(images: Tensor, amount: Tensor) -> Tensor:
    """Luminance (n, 1, R, R), rounded down; `amount` is of no effect."""
    red, green, blue = images.split(1, 1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_()


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * _each(factor)).clamp_(0, 255).floor_()


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    # In float64 the sum is exact, in whatever order it is taken.
    mean = gray(images, factor).mean((1, 2, 3), keepdim=True, dtype=torch.float64)
    return _blend(images, mean.to(images.dtype), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, gray(images, factor), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (> 1) or towards (< 1) the mean of 3 x 3 pixels, of which the centre weighs 5; the edge stays."""
    size = images.shape[-1]
    if size <= 2:
        return images
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inside = images[:, :, 1:-1, 1:-1]
    blurred = ((total + 4 * inside) / 13).round_()
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = (inside + (blurred - inside) * _each(1 - factor)).clamp_(0, 255).floor_()
    return result


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of the colour circle, -0.5..0.5."""
    x = images / 255
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    span = value - least
    safe = torch.where(span == 0, 1, span)
    red, green, blue = ((value - x) / safe).split(1, 1)
    sextant = torch.where(
        x[:, 0:1] == value, blue - green, torch.where(x[:, 1:2] == value, 2 + red - blue, 4 + green - red)
    )
    angle = (sextant / 6 + 1) % 1
    angle = (angle + _each(turn)) % 1 * 6
    # Channel by channel, see Smith 1978: `distance` from the sextants where the channel is largest.
    # Made on the device: nothing is waited for.
    offset = torch.arange(5, 0, -2, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    distance = (offset + angle) % 6
    result = value - span * torch.minimum(distance, 4 - distance).clamp_(0, 1)
    return (result * 255.999).floor_().clamp_(0, 255)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    step = _each(2 ** (8 - bits)).round()  # a GPU's power of two may be an ulp off
    return (images / step).floor_() * step


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= _each(threshold), 255 - images, images)


def solarize_add(images: Tensor, levels: Tensor) -> Tensor:
    """Dark pixels, below 128, made lighter."""
    return torch.where(images < 128, (images + _each(levels)).clamp_(max=255), images)


def auto_contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a channel of one value stays."""
    least, most = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = least == most
    scale = torch.where(flat, 1, (most - least) * (1 / 255))
    return ((images - torch.where(flat, 0, least)) / scale).clamp_(0, 255).floor_()


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel's histogram made flat, by Pillow's rule."""
    levels = images.flatten(2).long()
    histogram = levels.new_zeros((*levels.shape[:2], 256)).scatter_add_(2, levels, torch.ones_like(levels))
    total = histogram.cumsum(2)
    brightest = levels.amax(2, keepdim=True)
    step = (levels.shape[2] - histogram.gather(2, brightest)) // 255
    table = ((total[..., :-1] + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = F.pad(table, (1, 0))
    result = torch.where(step == 0, levels, table.gather(2, levels))
    return result.view(images.shape).to(images.dtype)


def invert(images: Tensor, amount: Tensor) -> Tensor:
    return 255 - images


_REACH = 6  # pixels: three standard deviations of the widest blur, 2 pixels


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian; beyond the edge its pixels repeat."""
    offsets = torch.arange(-_REACH, _REACH + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    for axis in (2, 3):
        size = images.shape[axis]
        padded = F.pad(images, (0, 0, _REACH, _REACH) if axis == 2 else (_REACH, _REACH, 0, 0), mode="replicate")
        images = sum(
            (padded.narrow(axis, k, size) * _each(weights[:, k]) for k in range(1, 2 * _REACH + 1)),
            padded.narrow(axis, 0, size) * _each(weights[:, 0]),
        )
    return images.round()


def warp(images: Tensor, matrix: Tensor, *, interpolation: str, fill: Tensor) -> Tensor:
    """Affine maps.

    At an edge bilinear mixes `fill` in by its share; torchvision's kernel darkens the image's share there. Bicubic is
    Pillow's, which timm has: beyond the edge its pixels repeat, up to half a pixel out.

    Args:
        images: (n, 3, R, R).
        matrix: (n, 6): the pixel at (x, y) comes from (m0 x + m1 y + m2, m3 x + m4 y + m5), from the image's centre.
        interpolation: nearest; bilinear: mean of the four nearest pixels; bicubic: of sixteen.
        fill: (3,) what is beyond the edge.
    """
    number, _, size, _ = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(number, size * size, 3)
    at = torch.arange(size, device=images.device, dtype=images.dtype) + (0.5 - size / 2)
    x, y = at.view(1, 1, -1), at.view(1, -1, 1)
    m = matrix.view(number, 6, 1, 1).unbind(1)
    left = m[0] * x + m[1] * y + m[2] + (size / 2 - 0.5)
    top = m[3] * x + m[4] * y + m[5] + (size / 2 - 0.5)

    def nearest(row: Tensor, col: Tensor) -> Tensor:
        place = (row.clamp(0, size - 1) * size + col.clamp(0, size - 1)).long().view(number, -1, 1)
        return pixels.gather(1, place.expand(-1, -1, 3)).view(*row.shape, 3)

    def taken(row: Tensor, col: Tensor) -> Tensor:
        inside = (row >= 0) & (row < size) & (col >= 0) & (col < size)
        return torch.where(inside[..., None], nearest(row, col), fill)

    if interpolation == "nearest":
        return taken(top.round(), left.round()).permute(0, 3, 1, 2)
    row, col = top.floor(), left.floor()
    down, right = (top - row)[..., None], (left - col)[..., None]
    if interpolation == "bicubic":
        across = _cubic(right)
        lines = [sum(across[k] * nearest(row + i, col + k - 1) for k in range(4)) for i in (-1, 0, 1, 2)]
        result = torch.stack([weight * line for weight, line in zip(_cubic(down), lines, strict=True)]).sum(0)
        inside = (top >= -0.5) & (top < size - 0.5) & (left >= -0.5) & (left < size - 0.5)
        return torch.where(inside[..., None], result.clamp(0, 255).floor(), fill).permute(0, 3, 1, 2)
    upper = taken(row, col) * (1 - right) + taken(row, col + 1) * right
    lower = taken(row + 1, col) * (1 - right) + taken(row + 1, col + 1) * right
    return (upper * (1 - down) + lower * down).round().permute(0, 3, 1, 2)


def _cubic(d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the pixels at -1, 0, 1 and 2, for the place `d` between 0 and 1; Pillow's, of slope -1."""
    square, cube = d * d, d * d * d
    return 2 * square - d - cube, 1 - 2 * square + cube, d + square - cube, cube - square


WARP = "Warp"
# By the name in a policy; all but the warps, which have matrices.
OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": brightness,
    "Color": saturation,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Hue": hue,
    "Gray": lambda images, amount: gray(images, amount).expand_as(images),
    "GaussianBlur": blur,
}
