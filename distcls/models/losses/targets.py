"""Conversion of labels to one target per class."""

import torch
from torch import Tensor

from distcls.errors import ArgumentError


def per_class(label: Tensor, cls_score: Tensor, loss: str) -> Tensor:
    """Labels (N,) -> one-hot (N, C); labels (N, C) keep their values. In float32 at least.

    Half-precision scores must not determine the dtype: it would round small targets such as eps / C of smoothed labels.

    Args:
        loss: class name of the loss, for the message.

    Raises:
        UserError: labels (N, C) whose shape is not that of the scores (N, C).
    """
    dtype = torch.promote_types(cls_score.dtype, torch.float32)
    if label.ndim == 1:
        return torch.zeros(cls_score.shape, dtype=dtype, device=cls_score.device).scatter_(1, label[:, None], 1)
    if label.shape != cls_score.shape:
        raise ArgumentError(
            loss, f"got targets {tuple(label.shape)}, expected the scores' shape {tuple(cls_score.shape)}"
        )
    return label.to(dtype)
