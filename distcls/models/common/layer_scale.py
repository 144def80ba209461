"""LayerScale: a learned factor per channel at the end of a residual branch."""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """(..., dim) -> (..., dim), each channel times its weight. Touvron et al., "Going deeper with Image
    Transformers", 2021.

    Args:
        dim: channels.
        layer_scale_init_value: the weight at the start; small, so that a deep network begins near the identity.
    """

    def __init__(self, dim: int, layer_scale_init_value: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), layer_scale_init_value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def build_layer_scale(dim: int, init_value: float) -> nn.Module:
    """LayerScale, or the identity where `init_value` is 0: then the state_dict has no entry for it."""
    return LayerScale(dim, init_value) if init_value > 0 else nn.Identity()
