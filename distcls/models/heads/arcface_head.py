"""ArcFaceClsHead: a cosine classifier, trained with an additive angular margin."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.heads.cls_head import ClsHead, Features
from distcls.registry import HEADS


class NormProduct(nn.Linear):
    """Features (N, in) -> cosines (N, out) of the angles between features and weights."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input), F.normalize(self.weight))


@HEADS.register
class ArcFaceClsHead(ClsHead):
    """Features (N, in_channels) -> scaled cosines (N, num_classes). Follows MMPretrain 1.2.

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2018; sub-centers: the same
    authors, 2020. The angle to the label's center is enlarged by its margin in training but not in evaluation, so the
    two losses differ by more than generalisation; the top-k counts never include the margin.

    Args:
        num_classes: at least 1.
        in_channels: width of the features; build_classifier fills it in from backbone and neck.
        num_subcenters: centers per class, of which the nearest is used.
        scale: factor of the cosines.
        margins: in radians, one for all classes or one for each.
        easy_margin: enlarge only angles below 90 degrees.
        kwargs: as ClsHead's.

    Raises:
        UserError: a width is not positive, or the margins are not one per class.
    """

    margins: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int | None = None,
        num_subcenters: Annotated[int, Field(gt=0)] = 1,
        scale: float = 64.0,
        margins: float | Sequence[float] = 0.5,
        easy_margin: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_widths(num_classes, in_channels)
        each = [float(margins)] * num_classes if isinstance(margins, int | float) else list(margins)
        if len(each) != num_classes:
            raise ArgumentError(
                "ArcFaceClsHead.margins",
                f"got {len(each)} values, expected one, or one for each of {num_classes} classes",
            )
        self.num_subcenters = num_subcenters
        self.scale = scale
        self.easy_margin = easy_margin
        self.norm_product = NormProduct(self.in_channels, num_classes * num_subcenters, bias=False)
        self.register_buffer("margins", torch.tensor(each), persistent=False)  # not in MMPretrain's state_dict

    def forward(self, x: Features) -> Tensor:
        """Features (N, in_channels), of a tuple the last -> logits (N, num_classes), without margin."""
        return self.scale * self._cosines(x)

    def forward_train(self, x: Features, gt_label: Tensor) -> dict[str, Tensor]:
        cosines = self._cosines(x)
        # with soft labels, each class gets its margin in proportion to its share
        share = F.one_hot(gt_label, self.num_classes) if gt_label.ndim == 1 else gt_label
        share = share.to(cosines.dtype)
        with_margin = self.scale * (share * self._enlarged(cosines) + (1 - share) * cosines)
        return {**self.losses(with_margin, gt_label), **self.counts(self.scale * cosines, gt_label)}

    def _cosines(self, x: Features) -> Tensor:
        cosines = self.norm_product(self.pooled(self.pre_logits(x)))
        # rounding may exceed [-1, 1], and half precision is too coarse for the angle
        cosines = cosines.to(torch.promote_types(cosines.dtype, torch.float32)).clamp(-1, 1)
        return cosines.view(-1, self.num_classes, self.num_subcenters).amax(dim=2)

    def _enlarged(self, cosines: Tensor) -> Tensor:
        """Cosines of the angles plus margin; linear where the sum exceeds 180 degrees, to stay monotonic."""
        margins = self.margins.to(cosines.dtype)
        # the derivative of the square root is unbounded at 0
        sines = (1 - cosines.square()).clamp(min=1e-12).sqrt()
        enlarged = cosines * margins.cos() - sines * margins.sin()
        if self.easy_margin:
            return torch.where(cosines > 0, enlarged, cosines)
        return torch.where(cosines > (math.pi - margins).cos(), enlarged, cosines - (math.pi - margins).sin() * margins)
