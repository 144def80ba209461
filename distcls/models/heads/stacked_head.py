"""StackedLinearClsHead: several fully connected layers."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.common import build_activation_layer, build_norm_layer, init_layers, normal_init
from distcls.models.heads.cls_head import ClsHead, Features
from distcls.registry import HEADS


class LinearBlock(nn.Module):
    """A fully connected layer, followed by norm, activation and dropout where given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dropout_rate: float = 0.0,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, out_channels)
        self.norm = build_norm_layer(norm_cfg, out_channels)[1] if norm_cfg else nn.Identity()
        self.act = build_activation_layer(act_cfg) if act_cfg else nn.Identity()
        self.dropout = nn.Dropout(dropout_rate) if dropout_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.act(self.norm(self.fc(x))))


@HEADS.register
class StackedLinearClsHead(ClsHead):
    """Features (N, in_channels) -> hidden layers -> logits (N, num_classes). Follows MMPretrain 1.2.

    Layers are initialised from N(0, 0.01^2) with zero biases, as in LinearClsHead; so are MobileNetV3's in torchvision
    and, through an init_cfg, in MMPretrain.

    Args:
        num_classes: at least 1.
        mid_channels: width of each hidden layer.
        in_channels: width of the features; build_classifier fills it in from backbone and neck.
        dropout_rate: of the hidden layers.
        norm_cfg: norm of the hidden layers, e.g. ``{type: BN1d}``; null leaves it out.
        act_cfg: their activation; null leaves it out.
        kwargs: as ClsHead's.

    Raises:
        UserError: a width is not positive, or there is no hidden layer.
    """

    def __init__(
        self,
        num_classes: int,
        mid_channels: Sequence[int],
        in_channels: int | None = None,
        dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = {"type": "ReLU"},
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_widths(num_classes, in_channels)
        if not mid_channels or min(mid_channels) <= 0:
            raise ArgumentError(
                "StackedLinearClsHead.mid_channels", f"got {mid_channels}, expected a list of positive widths"
            )
        hidden = [
            LinearBlock(before, after, dropout_rate, norm_cfg, act_cfg)
            for before, after in pairwise([self.in_channels, *mid_channels])
        ]
        self.layers = nn.ModuleList([*hidden, LinearBlock(mid_channels[-1], num_classes)])

    def init_weights(self) -> None:
        init_layers(self, {nn.Linear: partial(normal_init, std=0.01)})

    def pre_logits(self, x: Features) -> Tensor:
        """Features (N, in_channels), or the last entry of a tuple -> the last layer's input (N, mid_channels[-1])."""
        features = self.pooled(x)
        for layer in self.layers[:-1]:
            features = layer(features)
        return features

    def forward(self, x: Features) -> Tensor:
        return self.layers[-1](self.pre_logits(x))
