"""Labels as one target per class."""

import torch
from torch import Tensor

from distcls.errors import ArgumentError


def per_class(label: Tensor, cls_score: Tensor, loss: str) -> Tensor:
    """Labels (N,) -> 1 for their class and 0 for the others (N, C); labels (N, C) stay. As floats of 32 bits at least.

    Low-precision scores do not round the targets: eps / C of a smoothed label is small.

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
