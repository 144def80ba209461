"""LayerNorm2d: LayerNorm over the channels of a feature map."""

from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.LayerNorm):
    """(N, C, H, W) -> (N, C, H, W), normalised over C at each position; `LN2d` in a norm_cfg.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()

    def channels_last(self, x: Tensor) -> Tensor:
        """The same for (N, H, W, C), without permuting."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
