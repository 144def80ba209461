"""VisionTransformerClsHead: class token -> logits, optionally through a hidden layer."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.common import build_activation_layer, constant_init, trunc_normal_init
from distcls.models.heads.cls_head import ClsHead
from distcls.registry import HEADS


@HEADS.register
class VisionTransformerClsHead(ClsHead):
    """Class token (N, in_channels) -> logits (N, num_classes). Follows MMPretrain 1.2.

    Args:
        num_classes: at least 1.
        in_channels: width of the token; build_classifier fills it in from the backbone.
        hidden_dim: width of a hidden layer before the classifier, used in pre-training; None: no such layer.
        act_cfg: the activation after that layer.
        kwargs: as ClsHead's.

    Raises:
        UserError: num_classes or in_channels is not positive.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int | None = None,
        hidden_dim: int | None = None,
        act_cfg: dict = {"type": "Tanh"},  # noqa: B006
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_widths(num_classes, in_channels)
        self.hidden_dim = hidden_dim
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if hidden_dim is not None:
            layers["pre_logits"] = nn.Linear(self.in_channels, hidden_dim)
            layers["act"] = build_activation_layer(act_cfg)
        layers["head"] = nn.Linear(hidden_dim or self.in_channels, num_classes)
        self.layers: Any = nn.Sequential(layers)

    def init_weights(self) -> None:
        """Zero the classifier, so that all classes start equally likely; LeCun's variance for the hidden layer."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                constant_init(layer, 0.0)
        if self.hidden_dim is not None:
            trunc_normal_init(self.layers.pre_logits, std=self.in_channels**-0.5)

    def pre_logits(self, x: Any) -> Tensor:
        """The last layer's input (N, C); from a list of patch and class tokens, the class token is taken."""
        token = super().pre_logits(x)
        return self.hidden(token[-1] if isinstance(token, list) else token)

    def hidden(self, token: Tensor) -> Tensor:
        """A token (N, in_channels) -> (N, hidden_dim), or the token itself where there is no hidden layer."""
        if token.ndim != 2:
            raise ArgumentError(
                type(self).__name__,
                f"got features of shape {tuple(token.shape)}, expected a class token (N, C): "
                "a backbone with out_type 'cls_token' gives one",
            )
        return token if self.hidden_dim is None else self.layers.act(self.layers.pre_logits(token))

    def forward(self, x: Any) -> Tensor:
        return self.layers.head(self.pre_logits(x))
