"""GlobalAveragePooling: a feature map -> its mean over the positions."""

from typing import Literal

from torch import Tensor, nn

from distcls.registry import NECKS


@NECKS.register
class GlobalAveragePooling(nn.Module):
    """(N, C, H, W) -> (N, C); a tuple of maps -> a tuple. Lin et al., "Network In Network", 2013.

    Args:
        dim: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, D, H, W).
    """

    def __init__(self, dim: Literal[1, 2, 3] = 2) -> None:
        super().__init__()
        pools = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
        self.gap = pools[dim](1)

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if isinstance(inputs, tuple):
            return tuple(self.gap(x).flatten(1) for x in inputs)
        return self.gap(inputs).flatten(1)
