"""LinearClsHead: one fully connected layer."""

from typing import Any

from torch import Tensor, nn

from distcls.errors import UserError
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
        if num_classes <= 0:
            raise UserError(f"LinearClsHead.num_classes: got {num_classes}, expected a positive number")
        if in_channels is None or in_channels <= 0:
            raise UserError(f"LinearClsHead.in_channels: got {in_channels}, expected a positive number")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self._init_layers()

    def _init_layers(self) -> None:
        self.fc = nn.Linear(self.in_channels, self.num_classes)

    def init_weights(self) -> None:
        normal_init(self.fc, mean=0.0, std=0.01, bias=0.0)

    def forward(self, x: Features) -> Tensor:
        """Features (N, in_channels), or a tuple of them of which the last counts -> logits (N, num_classes)."""
        features = self.pre_logits(x)
        if features.ndim != 2:
            raise UserError(
                f"LinearClsHead takes features (N, C), got {tuple(features.shape)}: "
                "add a neck that pools them, such as neck: {type: GlobalAveragePooling}"
            )
        return self.fc(features)
