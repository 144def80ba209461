"""GlobalAveragePooling: a feature map -> its mean over the positions."""

from typing import Literal

from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.registry import NECKS


@NECKS.register
class GlobalAveragePooling(nn.Module):
    """(N, C, H, W) -> (N, C); a tuple of maps -> a tuple. Lin et al., "Network In Network", 2013.

    Args:
        dim: 1 for (N, C, L), 2 for (N, C, H, W), 3 for (N, C, D, H, W).

    Raises:
        UserError: in `forward`, for features without spatial dimensions, which torch would pool into a single row.
    """

    def __init__(self, dim: Literal[1, 2, 3] = 2) -> None:
        super().__init__()
        pools = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
        self.gap = pools[dim](1)
        self.dim = dim

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if isinstance(inputs, tuple):
            return tuple(self._pooled(x) for x in inputs)
        return self._pooled(inputs)

    def _pooled(self, x: Tensor) -> Tensor:
        if x.ndim != self.dim + 2:
            raise ArgumentError(
                "GlobalAveragePooling",
                f"got features of shape {tuple(x.shape)}, expected {self.dim + 2} dimensions, "
                f"(N, C) and {self.dim} of positions. Features that are pooled already need no neck: model.neck=null",
            )
        return self.gap(x).flatten(1)
