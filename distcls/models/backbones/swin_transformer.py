"""SwinTransformer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distcls.models.backbones.arguments import check_frozen_stages, check_heads, find_arch, per_item, stage_indices
from distcls.models.backbones.freezable_backbone import FreezableBackbone
from distcls.models.common import (
    FFN,
    DropRate,
    LinearInit,
    PatchEmbed,
    PatchMerging,
    build_norm_layer,
    drop_path_rates,
    init_linear_layers,
    run_checkpointed,
)
from distcls.models.common.position_embedding import fit_before_loading, fit_pos_embed, resize_pos_embed
from distcls.models.common.window_attention import ShiftWindowMSA, WindowMSA
from distcls.registry import BACKBONES

Grid = tuple[int, int]


class SwinBlock(nn.Module):
    """Tokens (N, h * w, C) -> the same: window attention and feed-forward network, each with a norm and a shortcut.

    Args:
        embed_dims: C.
        window_size: height and width of the windows.
        shift: shift the windows by half their size.
        ffn_ratio: inner width of the feed-forward network / C.
        drop_path: probability to skip a branch of an image in training.
        pad_small_map: see ShiftWindowMSA.
        attn_cfgs, ffn_cfgs: further arguments of ShiftWindowMSA and FFN.
        with_cp: compute the activations again in backward instead of keeping them.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 7,
        shift: bool = False,
        ffn_ratio: float = 4.0,
        drop_path: float = 0.0,
        pad_small_map: bool = False,
        attn_cfgs: Mapping[str, Any] = {},
        ffn_cfgs: Mapping[str, Any] = {},
        norm_cfg: Mapping[str, Any] = {"type": "LN"},
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        _, self.norm1 = build_norm_layer(norm_cfg, embed_dims)
        self.attn = ShiftWindowMSA(
            **{
                "embed_dims": embed_dims,
                "num_heads": num_heads,
                "window_size": window_size,
                "shift_size": window_size // 2 if shift else 0,
                "drop_path_rate": drop_path,
                "pad_small_map": pad_small_map,
                **attn_cfgs,
            }
        )
        _, self.norm2 = build_norm_layer(norm_cfg, embed_dims)
        ffn = {"feedforward_channels": int(embed_dims * ffn_ratio), "drop_path_rate": drop_path, **ffn_cfgs}
        self.ffn = FFN(embed_dims, **ffn)

    def _block(self, x: Tensor, grid: Grid) -> Tensor:
        x = x + self.attn(self.norm1(x), grid)
        return x + self.ffn(self.norm2(x))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return run_checkpointed(self, partial(self._block, grid=grid), x) if self.with_cp else self._block(x, grid)


class SwinBlockSequence(nn.Module):
    """A stage: blocks, every second one with shifted windows, followed by patch merging.

    Args:
        embed_dims: width of its tokens.
        depth: blocks.
        downsample: merge 2 x 2 tokens to one of twice the width at the end.
        downsample_cfg: further arguments of PatchMerging.
        drop_paths: one rate per block.
        block_cfgs: further arguments of the blocks: one mapping for all or a list with one for each.
        kwargs: of all blocks.
    """

    def __init__(
        self,
        embed_dims: int,
        depth: int,
        num_heads: int,
        downsample: bool,
        drop_paths: Sequence[float],
        downsample_cfg: Mapping[str, Any] = {},
        block_cfgs: Mapping[str, Any] | Sequence[Mapping[str, Any]] = {},
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(embed_dims, num_heads, **{"shift": i % 2 == 1, "drop_path": drop_paths[i], **kwargs, **cfg})
            for i, cfg in enumerate(per_item(SwinTransformer, "block_cfgs", block_cfgs, depth))
        )
        merging = {"in_channels": embed_dims, "out_channels": 2 * embed_dims, **downsample_cfg}
        self.downsample = PatchMerging(**merging) if downsample else None
        self.out_channels = embed_dims if self.downsample is None else self.downsample.out_channels

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Run only the blocks: the backbone does the merging, and returns the map before or after it."""
        for block in self.blocks:
            x = block(x, grid)
        return x


def _size(embed_dims: int, third: int, heads: int) -> dict[str, Any]:
    return {"embed_dims": embed_dims, "depths": (2, 2, third, 2), "num_heads": tuple(heads * 2**i for i in range(4))}


@BACKBONES.register
class SwinTransformer(FreezableBackbone):
    """Swin. Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", 2021,
    https://arxiv.org/abs/2103.14030. Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map (N, C * 2^i, H / 2^(i+2), W / 2^(i+2)) of every stage i in out_indices.

    Args:
        arch: a size by name, or a mapping with embed_dims, depths and num_heads.
        img_size: height and width in pixels that the absolute position embedding is made for.
        patch_size: of a token, in pixels.
        in_channels: of the images.
        window_size: height and width of the windows, in tokens.
        drop_rate: probability to drop an element of the embedded tokens.
        drop_path_rate: probability to skip a branch of the last block; the others' grows to it linearly from 0.
        out_indices: stages whose maps are returned.
        out_after_downsample: return a stage's map after the merging that follows it.
        use_abs_pos_embed: add a learned position embedding to the tokens.
        interpolate_mode: how it is resized.
        with_cp: compute the blocks' activations again in backward instead of keeping them.
        frozen_stages: the last stage, counted from 0, that is not trained; the stages before it and the embedding are
            not trained either. -1 freezes nothing.
        pad_small_map: fill a map smaller than the window with zeros; False refuses it.
        norm_cfg: of the returned maps; None returns them as they are.
        stage_cfgs: further arguments of the stages: one mapping for all or a list with one for each.
        patch_cfg: further arguments of PatchEmbed.
        linear_init: see init_linear_layers; "mmpretrain" is torch's own.

    Raises:
        UserError: an unknown arch, stages out of range, or images too small for the windows.
    """

    arch_zoo: ClassVar[dict[str, dict[str, Any]]] = {
        **dict.fromkeys(("t", "tiny"), _size(96, 6, 3)),
        **dict.fromkeys(("s", "small"), _size(96, 18, 3)),
        **dict.fromkeys(("b", "base"), _size(128, 18, 4)),
        **dict.fromkeys(("l", "large"), _size(192, 18, 6)),
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = "tiny",
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 4,
        in_channels: int = 3,
        window_size: int = 7,
        drop_rate: DropRate = 0.0,
        drop_path_rate: DropRate = 0.1,
        out_indices: int | tuple[int, ...] = (3,),
        out_after_downsample: bool = False,
        use_abs_pos_embed: bool = False,
        interpolate_mode: Literal["bicubic", "bilinear"] = "bicubic",
        with_cp: bool = False,
        frozen_stages: int = -1,
        pad_small_map: bool = False,
        norm_cfg: dict | None = {"type": "LN"},  # noqa: B006
        stage_cfgs: dict | list[dict] = {},  # noqa: B006
        patch_cfg: dict = {},  # noqa: B006
        linear_init: LinearInit = "mmpretrain",
    ) -> None:
        super().__init__()
        cls, settings = type(self), find_arch(type(self), arch, self.arch_zoo)
        self.in_channels = in_channels
        self.depths = tuple(settings["depths"])
        self.out_indices = stage_indices(cls, out_indices, len(self.depths))
        self.out_after_downsample = out_after_downsample
        self.interpolate_mode = interpolate_mode
        check_frozen_stages(cls, frozen_stages, -1, len(self.depths) - 1)
        self.frozen_stages = frozen_stages
        self.linear_init = linear_init

        width = settings["embed_dims"]
        patch = {"kernel_size": patch_size, "input_size": img_size, "norm_cfg": {"type": "LN"}, **patch_cfg}
        self.patch_embed = PatchEmbed(in_channels=in_channels, embed_dims=width, **patch)
        grid = self.patch_embed.grid
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], width)) if use_abs_pos_embed else None
        fit_before_loading(self)
        self.drop_after_pos = nn.Dropout(drop_rate)
        rates = drop_path_rates(drop_path_rate, sum(self.depths))
        self.stages: Any = nn.ModuleList()
        self.num_features = []
        for i, cfg in enumerate(per_item(cls, "stage_cfgs", stage_cfgs, len(self.depths))):
            check_heads(cls, width, settings["num_heads"][i])
            common = {
                "num_heads": settings["num_heads"][i],
                "window_size": window_size,
                "downsample": i < len(self.depths) - 1,
                "drop_paths": rates[sum(self.depths[:i]) :],
                "with_cp": with_cp,
                "pad_small_map": pad_small_map,
            }
            stage = SwinBlockSequence(width, self.depths[i], **{**common, **cfg})
            self.stages.append(stage)
            self.num_features.append(stage.out_channels if out_after_downsample else width)
            width = stage.out_channels
        for i in self.out_indices:
            norm = nn.Identity() if norm_cfg is None else build_norm_layer(norm_cfg, self.num_features[i])[1]
            self.add_module(f"norm{i}", norm)
        self.freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, grid = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            x = x + resize_pos_embed(
                self.absolute_pos_embed, self.patch_embed.grid, grid, self.interpolate_mode, num_extra_tokens=0
            )
        x = self.drop_after_pos(x)
        maps = []
        for i, stage in enumerate(self.stages):
            x, own = stage(x, grid), grid
            out = x
            if stage.downsample is not None:
                x, grid = stage.downsample(x, grid)
            if self.out_after_downsample:
                out, own = x, grid
            if i in self.out_indices:
                maps.append(getattr(self, f"norm{i}")(out).transpose(1, 2).unflatten(2, own).contiguous())
        return tuple(maps)

    def fit_position_embedding(self, state_dict: Any, prefix: str) -> None:
        """Resize the state_dict's absolute position embedding to this model's grid."""
        if self.absolute_pos_embed is not None:
            name, grid = f"{prefix}absolute_pos_embed", self.patch_embed.grid
            fit_pos_embed(state_dict, name, self.absolute_pos_embed, grid, self.interpolate_mode, 0)

    def init_weights(self) -> None:
        """Position parameters as in MMPretrain, linear layers by `linear_init`; the rest keeps torch's default."""
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, WindowMSA):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
        init_linear_layers(self, self.linear_init)

    def frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages < 0:
            return []
        positions = [] if self.absolute_pos_embed is None else [self.absolute_pos_embed]
        norms = [getattr(self, f"norm{i}") for i in self.out_indices if i <= self.frozen_stages]
        return [self.patch_embed, self.drop_after_pos, *positions, *self.stages[: self.frozen_stages + 1], *norms]

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths), for layer-wise learning rates: embedding 0, block i at i + 1.

        Args:
            param_name: of the classifier; without `prefix` it is the head's, which has the largest depth.
        """
        deepest = sum(self.depths) + 1
        name = param_name.removeprefix(prefix)
        if param_name.startswith(prefix) and name.startswith(("patch_embed.", "absolute_pos_embed")):
            return 0, deepest + 1
        if not param_name.startswith(f"{prefix}stages."):
            return deepest, deepest + 1
        _, stage, part, block = name.split(".")[:4]
        before = sum(self.depths[: int(stage)])
        return (before + int(block) + 1 if part == "blocks" else before + self.depths[int(stage)]), deepest + 1
