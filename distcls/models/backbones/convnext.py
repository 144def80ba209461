"""ConvNeXt, versions 1 and 2."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distcls.errors import ArgumentError
from distcls.models.backbones.arguments import find_arch
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    NORM_LAYERS,
    DropPath,
    DropRate,
    LayerNorm2d,
    build_activation_layer,
    build_norm_layer,
    constant_init,
    drop_path_rates,
    init_layers,
    run_checkpointed,
    trunc_normal_init,
)
from distcls.registry import BACKBONES


class GRN(nn.Module):
    """Global response normalisation of (N, H, W, C). Woo et al., "ConvNeXt V2", 2023.

    Args:
        in_channels: C.
        eps: added to the mean.
    """

    def __init__(self, in_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(in_channels))
        self.beta = nn.Parameter(torch.zeros(in_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        response = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        response = response / (response.mean(dim=-1, keepdim=True) + self.eps)
        return self.gamma * (x * response) + self.beta + x


class ConvNeXtBlock(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): 7x7 depthwise, norm, 1x1 up, activation, 1x1 down, with a shortcut.

    Args:
        in_channels: C.
        dw_conv_cfg: arguments of the depthwise convolution.
        mlp_ratio: inner width / C.
        linear_pw_conv: the 1x1 convolutions are linear layers on (N, H, W, C), as in the authors' code; the numbers are
            the same, the shapes of the weights are not.
        drop_path_rate: probability to skip the branch of an image in training.
        layer_scale_init_value: above 0 scales the branch by a learned factor per channel.
        use_grn: global response normalisation (version 2).
        with_cp: compute the activations again in backward instead of keeping them.
    """

    def __init__(
        self,
        in_channels: int,
        dw_conv_cfg: Mapping[str, Any] = {"kernel_size": 7, "padding": 3},
        norm_cfg: Mapping[str, Any] = {"type": "LN2d", "eps": 1e-6},
        act_cfg: Mapping[str, Any] = {"type": "GELU"},
        mlp_ratio: float = 4.0,
        linear_pw_conv: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_grn: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.linear_pw_conv = linear_pw_conv
        width = int(mlp_ratio * in_channels)
        pointwise = nn.Linear if linear_pw_conv else partial(nn.Conv2d, kernel_size=1)
        self.depthwise_conv = nn.Conv2d(in_channels, in_channels, groups=in_channels, **dw_conv_cfg)
        _, self.norm = build_norm_layer(norm_cfg, in_channels)
        self.pointwise_conv1 = pointwise(in_channels, width)
        self.act = build_activation_layer(act_cfg)
        self.pointwise_conv2 = pointwise(width, in_channels)
        self.grn = GRN(width) if use_grn else None
        self.gamma = (
            nn.Parameter(torch.full((in_channels,), layer_scale_init_value)) if layer_scale_init_value > 0 else None
        )
        self.drop_path = DropPath(drop_path_rate)

    def _inner(self, x: Tensor) -> Tensor:
        """1x1 up, activation, 1x1 down, in the layout that the layers take."""
        x = self.act(self.pointwise_conv1(x))
        if self.grn is not None:
            x = self.grn(x) if self.linear_pw_conv else self.grn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.pointwise_conv2(x)

    def _block(self, x: Tensor) -> Tensor:
        out = self.depthwise_conv(x)
        if not self.linear_pw_conv:
            out = self._inner(self.norm(out))
        elif isinstance(self.norm, LayerNorm2d):
            out = self._inner(self.norm.channels_last(out.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        else:
            out = self._inner(self.norm(out).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.gamma is not None:
            out = out * self.gamma.view(1, -1, 1, 1)
        return x + self.drop_path(out)

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self, self._block, x) if self.with_cp else self._block(x)


def _size(depths: tuple[int, ...], width: int) -> dict[str, tuple[int, ...]]:
    return {"depths": depths, "channels": (width, 2 * width, 4 * width, 8 * width)}


@BACKBONES.register
class ConvNeXt(StagedBackbone):
    """ConvNeXt: Liu et al., "A ConvNet for the 2020s", 2022, https://arxiv.org/abs/2201.03545; and version 2 with
    ``use_grn: true, layer_scale_init_value: 0``. Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the output of every stage i in out_indices: its mean over the positions,
    normalised, (N, C_i), so that no pooling neck follows; or the map (N, C_i, H / 2^(i+2), W / 2^(i+2)).

    Args:
        arch: a size by name, or a mapping with depths and channels of the stages.
        in_channels: of the images.
        stem_patch_size: stride of the stem, in pixels.
        norm_cfg, act_cfg: blocks for build_norm_layer and build_activation_layer.
        linear_pw_conv, use_grn, layer_scale_init_value: see ConvNeXtBlock.
        drop_path_rate: probability to skip the last block; the others' grows to it linearly from 0.
        out_indices: stages whose output is returned; negative numbers count from the last.
        frozen_stages: how many stages, counted from the first and with the downsampling before each, are not trained;
            0 or -1 freezes nothing.
        gap_before_final_norm: return means over the positions; False returns maps.
        with_cp: compute the blocks' activations again in backward instead of keeping them.

    Raises:
        UserError: an unknown arch, or stages out of range.
    """

    arch_settings: ClassVar[dict[str, dict[str, tuple[int, ...]]]] = {
        "atto": _size((2, 2, 6, 2), 40),
        "femto": _size((2, 2, 6, 2), 48),
        "pico": _size((2, 2, 6, 2), 64),
        "nano": _size((2, 2, 8, 2), 80),
        "tiny": _size((3, 3, 9, 3), 96),
        "small": _size((3, 3, 27, 3), 96),
        "base": _size((3, 3, 27, 3), 128),
        "large": _size((3, 3, 27, 3), 192),
        "xlarge": _size((3, 3, 27, 3), 256),
        "huge": _size((3, 3, 27, 3), 352),
    }

    def __init__(
        self,
        arch: str | dict[str, tuple[int, ...]] = "tiny",
        in_channels: int = 3,
        stem_patch_size: int = 4,
        norm_cfg: dict = {"type": "LN2d", "eps": 1e-6},  # noqa: B006
        act_cfg: dict = {"type": "GELU"},  # noqa: B006
        linear_pw_conv: bool = True,
        use_grn: bool = False,
        drop_path_rate: DropRate = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: int | tuple[int, ...] = -1,
        frozen_stages: int = 0,
        gap_before_final_norm: bool = True,
        with_cp: bool = False,
    ) -> None:
        settings = find_arch(type(self), arch, self.arch_settings)
        super().__init__(num_stages=len(settings["depths"]), out_indices=out_indices, frozen_stages=frozen_stages)
        self.depths, self.channels = tuple(settings["depths"]), tuple(settings["channels"])
        if len(self.depths) != len(self.channels):
            raise ArgumentError(
                "ConvNeXt.arch", f"got depths {self.depths} and channels {self.channels}, of another length"
            )
        self.in_channels = in_channels
        self.gap_before_final_norm = gap_before_final_norm

        def norm(channels: int) -> nn.Module:
            return build_norm_layer(norm_cfg, channels)[1]

        stem = nn.Conv2d(in_channels, self.channels[0], stem_patch_size, stride=stem_patch_size)
        self.downsample_layers = nn.ModuleList([nn.Sequential(stem, norm(self.channels[0]))])
        for before, after in zip(self.channels[:-1], self.channels[1:], strict=True):
            self.downsample_layers.append(nn.Sequential(norm(before), nn.Conv2d(before, after, 2, stride=2)))
        rates = iter(drop_path_rates(drop_path_rate, sum(self.depths)))
        block = partial(
            ConvNeXtBlock,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            linear_pw_conv=linear_pw_conv,
            layer_scale_init_value=layer_scale_init_value,
            use_grn=use_grn,
            with_cp=with_cp,
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(channels, drop_path_rate=next(rates)) for _ in range(depth)))
            for depth, channels in zip(self.depths, self.channels, strict=True)
        )
        for i in self.out_indices:
            self.add_module(f"norm{i}", norm(self.channels[i]))
        self.freeze_stages()

    def stage_layers(self) -> list[list[nn.Module]]:
        return [list(layers) for layers in zip(self.downsample_layers, self.stages, strict=True)]

    def output(self, x: Tensor, stage: int) -> Tensor:
        norm = getattr(self, f"norm{stage}")
        return norm(x.mean((2, 3), keepdim=True)).flatten(1) if self.gap_before_final_norm else norm(x)

    def init_weights(self) -> None:
        trunc_normal = partial(trunc_normal_init, std=0.02)
        init_layers(self, {(nn.Conv2d, nn.Linear): trunc_normal, NORM_LAYERS: partial(constant_init, val=1.0)})

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths), for layer-wise learning rates, as the authors group them:
        three blocks of the long third stage are one depth.

        Args:
            param_name: of the classifier; without `prefix` it is the head's, which has the largest depth.
        """
        last = 12 if self.depths[-2] > 9 else 6
        if not param_name.startswith((f"{prefix}downsample_layers.", f"{prefix}stages.")):
            return last + 1, last + 2
        part, stage, block = param_name.removeprefix(prefix).split(".")[:3]
        if int(stage) == 3:
            return last, last + 2
        if part == "downsample_layers":
            return (0 if stage == "0" else int(stage) + 1), last + 2
        return (3 + int(block) // 3 if stage == "2" else int(stage) + 1), last + 2
