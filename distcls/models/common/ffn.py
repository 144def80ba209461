"""FFN: the feed-forward network of a transformer layer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distcls.models.common.activation import build_activation_layer
from distcls.models.common.drop_path import DropPath
from distcls.models.common.layer_scale import build_layer_scale


class FFN(nn.Module):
    """Tokens (N, L, embed_dims) -> (N, L, embed_dims): linear, activation, linear. Names are those of mmcv's FFN.

    Args:
        feedforward_channels: inner width.
        num_fcs: linear layers, at least 2.
        ffn_drop: probability to drop an element after each linear layer.
        drop_path_rate: probability to drop the whole output of an image.
        layer_scale_init_value: above 0 scales the output by a learned factor per channel.
    """

    def __init__(
        self,
        embed_dims: int,
        feedforward_channels: int,
        num_fcs: int = 2,
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        ffn_drop: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [embed_dims, *[feedforward_channels] * (num_fcs - 1)]
        inner = [
            nn.Sequential(nn.Linear(width, feedforward_channels), build_activation_layer(act_cfg), nn.Dropout(ffn_drop))
            for width in widths[:-1]
        ]
        self.layers = nn.Sequential(*inner, nn.Linear(feedforward_channels, embed_dims), nn.Dropout(ffn_drop))
        self.dropout_layer = DropPath(drop_path_rate)
        self.gamma2 = build_layer_scale(embed_dims, layer_scale_init_value)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout_layer(self.gamma2(self.layers(x)))
