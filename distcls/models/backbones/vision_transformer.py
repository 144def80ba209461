"""VisionTransformer."""

import math
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.backbones.arguments import check_frozen_stages, check_heads, find_arch, per_item, stage_indices
from distcls.models.backbones.freezable_backbone import FreezableBackbone
from distcls.models.common import (
    FFN,
    DropRate,
    LinearInit,
    MultiheadAttention,
    PatchEmbed,
    build_norm_layer,
    drop_path_rates,
    init_linear_layers,
    run_checkpointed,
    trunc_normal_init,
)
from distcls.models.common.position_embedding import (
    fit_before_loading,
    fit_pos_embed,
    resize_pos_embed,
    sincos_2d,
)
from distcls.registry import BACKBONES


class TransformerEncoderLayer(nn.Module):
    """Tokens (N, L, C) -> (N, L, C): attention and feed-forward network, each with a norm before it and a shortcut.

    Args:
        embed_dims: C.
        feedforward_channels: inner width of the feed-forward network.
        layer_scale_init_value: above 0 scales both branches by learned factors per channel.
        drop_rate, attn_drop_rate, drop_path_rate: probabilities to drop elements, attention weights, whole branches.
        with_cp: compute the activations again in backward instead of keeping them.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        layer_scale_init_value: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        num_fcs: int = 2,
        qkv_bias: bool = True,
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        norm_cfg: Mapping[str, Any] = {"type": "LN"},
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        _, self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.attn = MultiheadAttention(
            embed_dims, num_heads, attn_drop_rate, drop_rate, drop_path_rate, qkv_bias, layer_scale_init_value
        )
        _, self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        self.ffn = FFN(
            embed_dims, feedforward_channels, num_fcs, act_cfg, drop_rate, drop_path_rate, layer_scale_init_value
        )

    def _layer(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.ffn(self.ln2(x))

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self, self._layer, x) if self.with_cp else self._layer(x)


def _size(embed_dims: int, num_layers: int, num_heads: int, feedforward_channels: int) -> dict[str, int]:
    return {
        "embed_dims": embed_dims,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "feedforward_channels": feedforward_channels,
    }


@BACKBONES.register
class VisionTransformer(FreezableBackbone):
    """ViT. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, https://arxiv.org/abs/2010.11929.

    Images (N, 3, H, W) -> a tuple with the output of every layer in out_indices, in the form given by `out_type`.
    Arguments and state_dict names are MMPretrain 1.2's. H and W are free: the position embedding is resized to them.

    Args:
        arch: a size by name ("small" is MMPretrain's own, 768 wide with 8 layers; the usual ViT-S is "deit-small"), or
            a mapping with embed_dims, num_layers, num_heads and feedforward_channels.
        img_size: height and width in pixels that the position embedding is made for.
        patch_size: of a token, in pixels.
        in_channels: of the images.
        out_indices: layers whose output is returned; negative numbers count from the last.
        drop_rate: probability to drop an element after embedding, attention and feed-forward layers.
        drop_path_rate: probability to skip a branch of the last layer; the others' grows to it linearly from 0.
        qkv_bias: queries, keys and values have a bias.
        norm_cfg: block for build_norm_layer.
        final_norm: normalise the output of the last layer.
        out_type: "cls_token" (N, C); "featmap" (N, C, h, w) of the patches; "avg_featmap" (N, C), their mean,
            normalised; "raw" (N, L, C), all tokens.
        with_cls_token: put a class token before the patches.
        frozen_stages: above 0, the embeddings and this many layers are not trained; if all layers, nor the last norm.
        interpolate_mode: how position embeddings are resized.
        layer_scale_init_value: see TransformerEncoderLayer.
        patch_cfg: further arguments of PatchEmbed.
        layer_cfgs: further arguments of the layers: one mapping for all or a list with one for each.
        pre_norm: normalise the embedded tokens, and embed them without a bias (CLIP).
        with_cp: compute the layers' activations again in backward instead of keeping them.
        position_embedding: "sincos2d" is computed, not trained, see sincos_2d; 0 for the class token.
        linear_init: see init_linear_layers; "mmpretrain" initialises only the feed-forward networks, the rest as torch.
            With "xavier_uniform" the patches' projection has LeCun's variance, as in the first ViT's code.

    Raises:
        UserError: an unknown arch, an out_type that needs a missing class token, layers out of range.
    """

    arch_zoo: ClassVar[dict[str, dict[str, int]]] = {
        **dict.fromkeys(("s", "small"), _size(768, 8, 8, 2304)),
        **dict.fromkeys(("b", "base", "deit-b", "deit-base"), _size(768, 12, 12, 3072)),
        **dict.fromkeys(("l", "large"), _size(1024, 24, 16, 4096)),
        **dict.fromkeys(("h", "huge"), _size(1280, 32, 16, 5120)),
        **dict.fromkeys(("eva-g", "eva-giant"), _size(1408, 40, 16, 6144)),
        **dict.fromkeys(("deit-t", "deit-tiny"), _size(192, 12, 3, 768)),
        **dict.fromkeys(("deit-s", "deit-small", "dinov2-s", "dinov2-small"), _size(384, 12, 6, 1536)),
    }
    #: tokens before those of the patches
    num_extra_tokens = 1

    def __init__(
        self,
        arch: str | dict[str, int] = "base",
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_channels: int = 3,
        out_indices: int | tuple[int, ...] = -1,
        drop_rate: DropRate = 0.0,
        drop_path_rate: DropRate = 0.0,
        qkv_bias: bool = True,
        norm_cfg: dict = {"type": "LN", "eps": 1e-6},  # noqa: B006
        final_norm: bool = True,
        out_type: Literal["cls_token", "featmap", "avg_featmap", "raw"] = "cls_token",
        with_cls_token: bool = True,
        frozen_stages: int = -1,
        interpolate_mode: Literal["bicubic", "bilinear"] = "bicubic",
        layer_scale_init_value: float = 0.0,
        patch_cfg: dict = {},  # noqa: B006
        layer_cfgs: dict | list[dict] = {},  # noqa: B006
        pre_norm: bool = False,
        with_cp: bool = False,
        position_embedding: Literal["learned", "sincos2d"] = "learned",
        linear_init: LinearInit = "mmpretrain",
    ) -> None:
        super().__init__()
        cls, settings = type(self), find_arch(type(self), arch, self.arch_zoo)
        check_heads(cls, settings["embed_dims"], settings["num_heads"])
        self.in_channels = in_channels
        self.embed_dims, self.num_layers = settings["embed_dims"], settings["num_layers"]
        self.out_indices = stage_indices(cls, out_indices, self.num_layers)
        check_frozen_stages(cls, frozen_stages, -1, self.num_layers)
        self.frozen_stages = frozen_stages
        self.out_type = out_type
        self.interpolate_mode = interpolate_mode
        self.final_norm = final_norm
        self.position_embedding, self.linear_init = position_embedding, linear_init
        if not with_cls_token:
            if out_type == "cls_token":
                raise ArgumentError(f"{cls.__name__}.out_type", "got 'cls_token', but with_cls_token is False")
            self.num_extra_tokens = 0

        patch = {"kernel_size": patch_size, "input_size": img_size, "bias": not pre_norm, **patch_cfg}
        self.patch_embed = PatchEmbed(in_channels=in_channels, embed_dims=self.embed_dims, **patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims)) if with_cls_token else None
        grid = self.patch_embed.grid
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + self.num_extra_tokens, self.embed_dims))
        if position_embedding == "sincos2d":
            self.pos_embed.requires_grad_(False)[:, self.num_extra_tokens :] = sincos_2d(grid, self.embed_dims)
        fit_before_loading(self)
        self.drop_after_pos = nn.Dropout(drop_rate)
        self.pre_norm = build_norm_layer(norm_cfg, self.embed_dims)[1] if pre_norm else nn.Identity()

        rates = drop_path_rates(drop_path_rate, self.num_layers)
        common = {
            **{key: value for key, value in settings.items() if key != "num_layers"},
            "layer_scale_init_value": layer_scale_init_value,
            "drop_rate": drop_rate,
            "qkv_bias": qkv_bias,
            "norm_cfg": norm_cfg,
            "with_cp": with_cp,
        }
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(**{**common, "drop_path_rate": rate, **cfg})
            for rate, cfg in zip(rates, per_item(cls, "layer_cfgs", layer_cfgs, self.num_layers), strict=True)
        )
        if final_norm:
            _, self.ln1 = build_norm_layer(norm_cfg, self.embed_dims)
        if out_type == "avg_featmap":
            _, self.ln2 = build_norm_layer(norm_cfg, self.embed_dims)
        self.freeze_stages()

    def extra_tokens(self) -> list[nn.Parameter]:
        """The tokens (1, 1, C) placed before those of the patches."""
        return [] if self.cls_token is None else [self.cls_token]

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        x, grid = self.patch_embed(x)
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in self.extra_tokens()), x], dim=1)
        x = x + resize_pos_embed(
            self.pos_embed, self.patch_embed.grid, grid, self.interpolate_mode, self.num_extra_tokens
        )
        x = self.pre_norm(self.drop_after_pos(x))
        outputs = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outputs.append(self.output(x, grid))
        return tuple(outputs)

    def output(self, x: Tensor, grid: tuple[int, int]) -> Any:
        """All tokens (N, L, C) -> the output in the form given by `out_type`."""
        if self.out_type == "raw":
            return x
        if self.out_type == "cls_token":
            return x[:, 0]
        patches = x[:, self.num_extra_tokens :]
        if self.out_type == "featmap":
            return patches.transpose(1, 2).unflatten(2, grid)
        return self.ln2(patches.mean(dim=1))

    def fit_position_embedding(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
        """Resize the state_dict's position embedding to this model's grid."""
        name, grid = f"{prefix}pos_embed", self.patch_embed.grid
        fit_pos_embed(state_dict, name, self.pos_embed, grid, self.interpolate_mode, self.num_extra_tokens)

    def init_weights(self) -> None:
        """Initialise as `linear_init` says; layers not named here keep torch's own initialisation."""
        for ffn in (module for module in self.modules() if isinstance(module, FFN)):
            for linear in (layer for layer in ffn.modules() if isinstance(layer, nn.Linear)):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.normal_(linear.bias, std=1e-6)
        init_linear_layers(self.layers, self.linear_init)
        if self.linear_init == "xavier_uniform":
            projection: Any = self.patch_embed.projection
            trunc_normal_init(projection, std=math.prod(projection.weight.shape[1:]) ** -0.5)
        if self.position_embedding == "learned":
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages <= 0:
            return []
        norms = [getattr(self, name) for name in ("ln1", "ln2") if hasattr(self, name)]
        return [
            *(self.patch_embed, self.pos_embed, *self.extra_tokens(), self.drop_after_pos, self.pre_norm),
            *self.layers[: self.frozen_stages],
            *(norms if self.frozen_stages == self.num_layers else []),
        ]

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths), for layer-wise learning rates: embeddings 0, layer i at i + 1.

        Args:
            param_name: of the classifier; without `prefix` it is the head's, which has the largest depth.
        """
        deepest = self.num_layers + 1
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix):
            return deepest, deepest + 1
        if name in ("cls_token", "dist_token", "pos_embed") or name.startswith(("patch_embed.", "pre_norm.")):
            return 0, deepest + 1
        return (int(name.split(".")[1]) + 1 if name.startswith("layers.") else deepest), deepest + 1
