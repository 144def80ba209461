"""DeiTClsHead: class and distillation token -> the mean of their logits."""

from typing import Any

from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.heads.vision_transformer_head import VisionTransformerClsHead
from distcls.registry import HEADS


@HEADS.register
class DeiTClsHead(VisionTransformerClsHead):
    """The two tokens of a DistilledVisionTransformer, (N, in_channels) each -> logits (N, num_classes).

    Follows MMPretrain 1.2: each token has its own classifier, and their logits are averaged. The loss is that of the
    mean in training, too, because there is no teacher.

    Args:
        kwargs: as VisionTransformerClsHead's.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers.add_module("head_dist", nn.Linear(self.hidden_dim or self.in_channels, self.num_classes))

    def pre_logits(self, x: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The features (N, C) of each of the two classifiers.

        Raises:
            UserError: a single token.
        """
        if isinstance(x, Tensor):
            raise ArgumentError(
                "DeiTClsHead",
                f"got features of shape {tuple(x.shape)}, expected the two tokens of a DistilledVisionTransformer; "
                "for one token there is VisionTransformerClsHead",
            )
        # a tuple of one pair, or the pair itself once unwrapped; before MMPretrain 1.0 the patches came first in it
        tokens = x if isinstance(x[-1], Tensor) else x[-1]
        return self.hidden(tokens[-2]), self.hidden(tokens[-1])

    def forward(self, x: Any) -> Tensor:
        cls_token, dist_token = self.pre_logits(x)
        return (self.layers.head(cls_token) + self.layers.head_dist(dist_token)) / 2
