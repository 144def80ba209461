"""BlurPoolConv2d: a convolution that blurs its input before it strides."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: [1, 2, 1] x [1, 2, 1] / 16
BINOMIAL = ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16))


class BlurPoolConv2d(nn.Conv2d):
    """Conv2d that first blurs each channel with a 3x3 binomial filter if it strides and has 16 or more input channels.

    After Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019, https://arxiv.org/abs/1904.11486, with the
    order and condition of ffcv-imagenet. Weights have the names of nn.Conv2d, so the same files load.
    """

    blur: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.blurs = max(self.stride) > 1 and self.in_channels >= 16
        if self.blurs:
            blur = torch.tensor(BINOMIAL).expand(self.in_channels, 1, 3, 3).clone()
            self.register_buffer("blur", blur, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.blurs:
            x = F.conv2d(x, self.blur, padding=1, groups=self.in_channels)
        return super().forward(x)
