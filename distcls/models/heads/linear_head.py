"""LinearClsHead: one fully connected layer."""

from typing import Any

from torch import Tensor, nn

from distcls.models.common import normal_init
from distcls.models.heads.cls_head import ClsHead, Features
from distcls.registry import HEADS


@HEADS.register
class LinearClsHead(ClsHead):
    """Features (N, in_channels) -> logits (N, num_classes). Follows MMPretrain 1.2.

    Args:
        num_classes: at least 1.
        in_channels: width of the features; build_classifier fills it in from backbone and neck.
        kwargs: as ClsHead's.

    Raises:
        UserError: num_classes or in_channels is not positive.
    """

    def __init__(self, num_classes: int, in_channels: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_widths(num_classes, in_channels)
        self._init_layers()

    def _init_layers(self) -> None:
        self.fc = nn.Linear(self.in_channels, self.num_classes)

    def init_weights(self) -> None:
        normal_init(self.fc, mean=0.0, std=0.01, bias=0.0)

    def forward(self, x: Features) -> Tensor:
        """Features (N, in_channels), or the last entry of a tuple -> logits (N, num_classes)."""
        return self.fc(self.pooled(self.pre_logits(x)))
