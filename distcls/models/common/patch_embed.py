"""Images -> tokens: PatchEmbed, and PatchMerging, which makes one token of several."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from distcls.models.common.conv import build_conv_layer
from distcls.models.common.norm import build_norm_layer

Pair = tuple[int, int]
#: Zero padding of the map: a number of pixels, or as many as complete the last windows, added at the bottom right
#: ("corner") or on both sides ("same").
Padding = int | Pair | Literal["corner", "same"]


def pair(value: int | tuple[int, int] | list[int]) -> Pair:
    """(height, width) of a number or of a pair."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class Windows:
    """The positions of a convolution's or unfold's windows on a map.

    Args:
        kernel_size, stride, dilation: as the layer's.
        padding: see `Padding`.
    """

    def __init__(self, kernel_size: Pair, stride: Pair, dilation: Pair, padding: Padding) -> None:
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.adaptive = padding if isinstance(padding, str) else None
        #: padding done by the layer itself
        self.padding: Pair = (0, 0) if isinstance(padding, str) else pair(padding)

    def missing(self, size: tuple[int, ...]) -> Pair:
        """Rows and columns to add to a map of (height, width) so that its last windows are complete."""
        if self.adaptive is None:
            return 0, 0
        rows, columns = (
            max((-(-n // stride) - 1) * stride + (kernel - 1) * dilation + 1 - n, 0)
            for n, kernel, stride, dilation in zip(size, self.kernel_size, self.stride, self.dilation, strict=True)
        )
        return rows, columns

    def fill(self, x: Tensor) -> Tensor:
        """Pad (N, C, H, W) with zeros by the missing rows and columns."""
        rows, columns = self.missing(x.shape[-2:])
        if not (rows or columns):
            return x
        top, left = (rows // 2, columns // 2) if self.adaptive == "same" else (0, 0)
        return F.pad(x, (left, columns - left, top, rows - top))

    def grid(self, size: tuple[int, ...]) -> Pair:
        """Number of windows on a map of (height, width), vertically and horizontally."""
        rows, columns = (
            (n + more + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for n, more, pad, kernel, stride, dilation in zip(
                size, self.missing(size), self.padding, self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        return rows, columns


class PatchEmbed(nn.Module):
    """Images (N, in, H, W) -> tokens (N, h * w, embed_dims) of patches, and (h, w). Follows mmcv's of this name.

    Args:
        in_channels: of the images.
        embed_dims: width of a token.
        conv_type: the convolution's name in a conv_cfg.
        kernel_size: of a patch, in pixels.
        stride: between patches; None means kernel_size.
        padding: see `Padding`; "corner" pads images whose size is not a multiple of the patch size.
        norm_cfg: None leaves the norm out.
        input_size: of the images that the model is made for; fixes `grid`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dims: int = 768,
        conv_type: str = "Conv2d",
        kernel_size: int | Pair = 16,
        stride: int | Pair | None = None,
        padding: Padding = "corner",
        dilation: int | Pair = 1,
        bias: bool = True,
        norm_cfg: Mapping[str, Any] | None = None,
        input_size: int | Pair = 224,
    ) -> None:
        super().__init__()
        stride = kernel_size if stride is None else stride
        self.windows = Windows(pair(kernel_size), pair(stride), pair(dilation), padding)
        self.projection = build_conv_layer(
            {"type": conv_type},
            in_channels,
            embed_dims,
            kernel_size=self.windows.kernel_size,
            stride=self.windows.stride,
            padding=self.windows.padding,
            dilation=self.windows.dilation,
            bias=bias,
        )
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg is not None else None
        self.grid = self.windows.grid(pair(input_size))

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        x = self.projection(self.windows.fill(x))
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        return (x if self.norm is None else self.norm(x)), grid


class PatchMerging(nn.Module):
    """Tokens (N, h * w, in) -> (N, h/2 * w/2, out): each 2 x 2 neighbours become one. Follows mmcv's of this name.

    The values of a neighbourhood are ordered channel by channel, as in torch's unfold. Swin's own and timm's weights
    expect them position by position, so they are permuted on loading.

    Args:
        kernel_size: of a neighbourhood.
        stride: between neighbourhoods; None means kernel_size.
        padding: see `Padding`.
        bias: of the projection.
        norm_cfg: None leaves the norm out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair = 2,
        stride: int | Pair | None = None,
        padding: Padding = "corner",
        dilation: int | Pair = 1,
        bias: bool = False,
        norm_cfg: Mapping[str, Any] | None = {"type": "LN"},
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        stride = kernel_size if stride is None else stride
        self.windows = Windows(pair(kernel_size), pair(stride), pair(dilation), padding)
        width = self.windows.kernel_size[0] * self.windows.kernel_size[1] * in_channels
        self.norm = build_norm_layer(norm_cfg, width)[1] if norm_cfg is not None else None
        self.reduction = nn.Linear(width, out_channels, bias=bias)

    def forward(self, x: Tensor, grid: Pair) -> tuple[Tensor, Pair]:
        x = x.view(-1, *grid, self.in_channels).permute(0, 3, 1, 2)
        windows = self.windows
        x = F.unfold(windows.fill(x), windows.kernel_size, windows.dilation, windows.padding, windows.stride)
        x = x.transpose(1, 2)
        return self.reduction(x if self.norm is None else self.norm(x)), windows.grid(grid)
