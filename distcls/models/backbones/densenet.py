"""DenseNet: every layer sees the maps of all layers before it."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distcls.models.backbones.arguments import find_arch
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    DropRate,
    build_activation_layer,
    build_norm_layer,
    run_checkpointed,
)
from distcls.registry import BACKBONES


class DenseLayer(nn.Module):
    """The concatenated maps of all previous layers (N, in_channels, H, W) -> growth_rate new ones.

    Args:
        bn_size: inner channels / growth_rate.
        drop_rate: probability of the dropout on the new maps.
        memory_efficient: recompute everything up to conv1 in backward; see https://arxiv.org/abs/1707.06990.
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        bn_size: int,
        norm_cfg: dict,
        act_cfg: dict,
        drop_rate: float,
        memory_efficient: bool,
    ) -> None:
        super().__init__()
        inner = bn_size * growth_rate
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = nn.Conv2d(in_channels, inner, kernel_size=1, bias=False)
        self.act = build_activation_layer(act_cfg, inplace=True)
        self.norm2 = build_norm_layer(norm_cfg, inner)[1]
        self.conv2 = nn.Conv2d(inner, growth_rate, kernel_size=3, padding=1, bias=False)
        self.dropout = nn.Dropout(drop_rate)
        self.memory_efficient = memory_efficient

    def _squeezed(self, *maps: Tensor) -> Tensor:
        return self.conv1(self.act(self.norm1(torch.cat(maps, dim=1))))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = run_checkpointed(self, self._squeezed, *maps) if self.memory_efficient else self._squeezed(*maps)
        return self.dropout(self.conv2(self.act(self.norm2(x))))


class DenseBlock(nn.Module):
    """(N, in, H, W) -> (N, in + num_layers * growth_rate, H, W): the input and what every layer adds."""

    def __init__(self, num_layers: int, in_channels: int, growth_rate: int, **kwargs: Any) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            DenseLayer(in_channels + i * growth_rate, growth_rate, **kwargs) for i in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.block:
            maps.append(layer(maps))
        return torch.cat(maps, dim=1)


class DenseTransition(nn.Sequential):
    """(N, in, H, W) -> (N, out, H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.add_module("norm", build_norm_layer(norm_cfg, in_channels)[1])
        self.add_module("act", build_activation_layer(act_cfg, inplace=True))
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False))
        self.add_module("pool", nn.AvgPool2d(kernel_size=2, stride=2))


@BACKBONES.register
class DenseNet(StagedBackbone):
    """Huang et al., "Densely Connected Convolutional Networks", 2017, https://arxiv.org/abs/1608.06993.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map of every stage i in out_indices, after its transition: (N, C_i, H /
    2^(i+3), W / 2^(i+3)), and of the last stage, which has no pooling, (N, C, H / 32, W / 32).

    Args:
        arch: a published network, or a mapping: growth_rate, depths (layers of each stage), init_channels (width of the
            stem).
        in_channels: of the images.
        bn_size: inner channels of a layer / growth_rate.
        drop_rate: probability of the dropout after every layer.
        compression_factor: width after a transition / width before it.
        memory_efficient: recompute the layers' inner maps in backward instead of keeping them.
        norm_cfg, act_cfg: blocks for build_norm_layer and build_activation_layer.
        out_indices: stages whose maps are returned; negative ones count from the end.
        frozen_stages: the stem and this many stages, counted from the first and with their transitions, are not
            trained; 0 freezes nothing.

    Raises:
        UserError: an unknown arch, or out_indices or frozen_stages name stages that do not exist.
    """

    arch_settings: ClassVar[dict[str, dict[str, Any]]] = {
        "121": {"growth_rate": 32, "depths": (6, 12, 24, 16), "init_channels": 64},
        "169": {"growth_rate": 32, "depths": (6, 12, 32, 32), "init_channels": 64},
        "201": {"growth_rate": 32, "depths": (6, 12, 48, 32), "init_channels": 64},
        "161": {"growth_rate": 48, "depths": (6, 12, 36, 24), "init_channels": 96},
    }

    def __init__(
        self,
        arch: Literal["121", "169", "201", "161"] | dict = "121",
        in_channels: int = 3,
        bn_size: int = 4,
        drop_rate: DropRate = 0.0,
        compression_factor: float = 0.5,
        memory_efficient: bool = False,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006
        act_cfg: dict = {"type": "ReLU"},  # noqa: B006
        out_indices: int | tuple[int, ...] = -1,
        frozen_stages: int = 0,
    ) -> None:
        settings = find_arch(type(self), arch, self.arch_settings)
        depths, growth_rate, width = settings["depths"], settings["growth_rate"], settings["init_channels"]
        super().__init__(num_stages=len(depths), out_indices=out_indices, frozen_stages=frozen_stages)
        self.in_channels = in_channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False),
            build_norm_layer(norm_cfg, width)[1],
            build_activation_layer(act_cfg, inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for depth in depths:
            stage = DenseBlock(
                depth,
                width,
                growth_rate,
                bn_size=bn_size,
                norm_cfg=norm_cfg,
                act_cfg=act_cfg,
                drop_rate=drop_rate,
                memory_efficient=memory_efficient,
            )
            self.stages.append(stage)
            width += depth * growth_rate
            if len(self.stages) < len(depths):
                narrower = int(width * compression_factor)
                self.transitions.append(DenseTransition(width, narrower, norm_cfg, act_cfg))
                width = narrower
            else:
                last = nn.Sequential(
                    build_norm_layer(norm_cfg, width)[1], build_activation_layer(act_cfg, inplace=True)
                )
                self.transitions.append(last)
        self.freeze_stages()

    def stem_layers(self) -> list[nn.Module]:
        return [self.stem]

    def stage_layers(self) -> list[list[nn.Module]]:
        return [list(layers) for layers in zip(self.stages, self.transitions, strict=True)]

    def frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        return super().frozen_parts() if self.frozen_stages > 0 else []
