"""LinearNeck: pooling, a fully connected layer, a norm and an activation."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.common import BaseModule, build_activation_layer, build_norm_layer
from distcls.models.necks.gap import GlobalAveragePooling
from distcls.registry import NECKS


@NECKS.register
class LinearNeck(BaseModule):
    """(N, in_channels, ...) -> (N, out_channels); a tuple's last entry -> a tuple of one. Follows MMPretrain 1.2.

    Args:
        in_channels: width of the features.
        out_channels: width that the head gets.
        gap_dim: dimensions to average over: 2 for (N, C, H, W), 0 for features (N, C).
        norm_cfg: norm after the layer, e.g. ``{type: BN1d}``; null leaves it out.
        act_cfg: activation after the norm; null leaves it out.

    Raises:
        UserError: in `forward`, for features of another width, or with positions that gap_dim does not average over.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        gap_dim: Literal[0, 1, 2, 3] = 0,
        norm_cfg: Mapping[str, Any] | None = {"type": "BN1d"},
        act_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.gap = GlobalAveragePooling(gap_dim) if gap_dim else nn.Identity()
        self.fc = nn.Linear(in_channels, out_channels)
        self.norm = build_norm_layer(norm_cfg, out_channels)[1] if norm_cfg else nn.Identity()
        self.act = build_activation_layer(act_cfg) if act_cfg else nn.Identity()

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor]:
        if isinstance(inputs, tuple):
            return (self._project(inputs[-1]),)
        return self._project(inputs)

    def _project(self, x: Tensor) -> Tensor:
        x = self.gap(x)
        if x.ndim != 2:
            raise ArgumentError(
                "LinearNeck.gap_dim", f"got 0 for features of shape {tuple(x.shape)}, expected {x.ndim - 2}"
            )
        if x.shape[1] != self.fc.in_features:
            raise ArgumentError(
                "LinearNeck.in_channels", f"got {self.fc.in_features}, but the backbone gives it {x.shape[1]} channels"
            )
        return self.act(self.norm(self.fc(x)))
