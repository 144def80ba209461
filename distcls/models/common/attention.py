"""Multi-head self-attention over all tokens, through torch's scaled_dot_product_attention."""

from torch import Tensor, nn
from torch.nn import functional as F

from distcls.models.common.drop_path import DropPath
from distcls.models.common.layer_scale import build_layer_scale


class MultiheadAttention(nn.Module):
    """Tokens (N, L, embed_dims) -> (N, L, embed_dims). Names in the state_dict are MMPretrain's.

    Args:
        embed_dims: width of a token; a multiple of num_heads.
        attn_drop: probability to drop an attention weight.
        proj_drop: probability to drop an element of the output.
        drop_path_rate: probability to drop the whole output of an image.
        qkv_bias: queries, keys and values have a bias.
        layer_scale_init_value: above 0 scales the output by a learned factor per channel.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        layer_scale_init_value: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.attn_drop = attn_drop
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)
        self.out_drop = DropPath(drop_path_rate)
        self.gamma1 = build_layer_scale(embed_dims, layer_scale_init_value)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop if self.training else 0.0)
        x = self.proj(x.transpose(1, 2).flatten(2))
        return self.out_drop(self.gamma1(self.proj_drop(x)))


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, L, 3 * C) -> queries, keys and values, (N, heads, L, C / heads) each."""
    q, k, v = qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v
