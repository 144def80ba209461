"""Conv2dAdaptivePadding: a convolution that pads as TensorFlow's "same" does."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Conv2dAdaptivePadding(nn.Conv2d):
    """(N, C, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)): the padding depends on the input size.

    If it is odd, the extra row or column goes to the bottom or right, which Conv2d's symmetric padding cannot do;
    EfficientNet's published weights need it. The argument `padding` is accepted and ignored. Follows mmcv.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "padding": 0})

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (
            max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, stride, kernel, dilation in zip(
                x.shape[2:], self.stride, self.kernel_size, self.dilation, strict=True
            )
        )
        if rows or columns:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)
