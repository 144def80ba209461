"""Top-k counts of correct predictions."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def topk_counts(cls_score: Tensor, gt_label: Tensor, topk: Sequence[int]) -> dict[str, Tensor]:
    """How many images have their label among their k highest scores, for each k: ``{"top1": ..., "top5": ...}``.

    The counts stay on the device as int64 scalars, without synchronisation.

    Args:
        cls_score: (N, C).
        gt_label: (N,) class numbers, or (N, C) soft labels, whose highest class is used.
        topk: each at most C.
    """
    if gt_label.ndim == 2:
        gt_label = gt_label.argmax(dim=1)
    best = cls_score.topk(max(topk), dim=1).indices
    hit = best == gt_label[:, None]
    return {f"top{k}": hit[:, :k].sum() for k in topk}
