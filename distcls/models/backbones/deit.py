"""DistilledVisionTransformer: a ViT with a second token that learns from a teacher."""

from typing import Any

import torch
from torch import Tensor, nn

from distcls.models.backbones.vision_transformer import VisionTransformer
from distcls.registry import BACKBONES


@BACKBONES.register
class DistilledVisionTransformer(VisionTransformer):
    """Distilled DeiT. Touvron et al., "Training data-efficient image transformers & distillation through attention",
    2020, https://arxiv.org/abs/2012.12877. Arguments and state_dict names are MMPretrain 1.2's.

    With `out_type` "cls_token" each output is the pair of class and distillation token, both (N, C): DeiTClsHead
    takes it.

    Args:
        arch: see VisionTransformer.
        kwargs: as VisionTransformer's; the class token is always there.
    """

    num_extra_tokens = 2

    def __init__(self, arch: str | dict[str, int] = "deit-base", **kwargs: Any) -> None:
        super().__init__(arch=arch, with_cls_token=True, **kwargs)
        self.dist_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self.freeze_stages()

    def extra_tokens(self) -> list[nn.Parameter]:
        tokens = super().extra_tokens()
        return [*tokens, self.dist_token] if hasattr(self, "dist_token") else tokens

    def output(self, x: Tensor, grid: tuple[int, int]) -> Any:
        return (x[:, 0], x[:, 1]) if self.out_type == "cls_token" else super().output(x, grid)

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.trunc_normal_(self.dist_token, std=0.02)
