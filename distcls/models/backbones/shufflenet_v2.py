"""ShuffleNetV2: half of the channels bypass each block, then the halves are interleaved."""

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distcls.models.backbones.arguments import check_choice
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    NORM_LAYERS,
    ConvModule,
    constant_init,
    init_layers,
    normal_init,
    run_checkpointed,
)
from distcls.registry import BACKBONES


class ShuffleBlock(nn.Module):
    """(N, in, H, W) -> (N, out, H / stride, W / stride); figure 3 (c) of the paper for stride 1, (d) for stride 2.

    With stride 1, in and out are equal and half of the channels go through `branch2`; with stride 2 both branches take
    all of them.

    Args:
        kwargs: conv_cfg, norm_cfg of all convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, act_cfg: dict, with_cp: bool = False, **kwargs: Any
    ) -> None:
        super().__init__()
        self.stride = stride
        self.with_cp = with_cp
        half = out_channels // 2

        def pointwise(channels: int) -> ConvModule:
            return ConvModule(channels, half, 1, act_cfg=act_cfg, **kwargs)

        def depthwise(channels: int) -> ConvModule:
            return ConvModule(channels, channels, 3, stride=stride, padding=1, groups=channels, act_cfg=None, **kwargs)

        if stride > 1:
            self.branch1 = nn.Sequential(depthwise(in_channels), pointwise(in_channels))
        self.branch2 = nn.Sequential(pointwise(in_channels if stride > 1 else half), depthwise(half), pointwise(half))

    def _shuffled(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            halves = (self.branch1(x), self.branch2(x))
        else:
            passing, worked_on = x.chunk(2, dim=1)
            halves = (passing, self.branch2(worked_on))
        return F.channel_shuffle(torch.cat(halves, dim=1), 2)

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self, self._shuffled, x) if self.with_cp else self._shuffled(x)


@BACKBONES.register
class ShuffleNetV2(StagedBackbone):
    """Ma et al., "ShuffleNet V2: Practical Guidelines", 2018, https://arxiv.org/abs/1807.11164.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map of every stage in out_indices: stages 0 to 2 are (N, C_i, H / 2^(i+3),
    W / 2^(i+3)), stage 3 is a 1x1 convolution of the last.

    Args:
        widen_factor: which of the paper's widths.
        out_indices: stages whose maps are returned.
        frozen_stages: conv1 and this many stages, counted from the first, are not trained; 0 freezes conv1 only, -1
            nothing.
        conv_cfg, norm_cfg, act_cfg: blocks for every ConvModule.
        norm_eval: BatchNorm keeps its running averages in training too.
        with_cp: compute the blocks' activations again in backward instead of keeping them.

    Raises:
        UserError: an unknown widen_factor, or out_indices or frozen_stages name stages that do not exist.
    """

    #: widen_factor -> widths of the stages; table 5 of the paper
    arch_settings: ClassVar[dict[float, tuple[int, int, int, int]]] = {
        0.5: (48, 96, 192, 1024),
        1.0: (116, 232, 464, 1024),
        1.5: (176, 352, 704, 1024),
        2.0: (244, 488, 976, 2048),
    }
    stage_blocks: ClassVar[tuple[int, ...]] = (4, 8, 4)

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: tuple[int, ...] = (3,),
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006
        act_cfg: dict = {"type": "ReLU"},  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
    ) -> None:
        check_choice(type(self), "widen_factor", widen_factor, self.arch_settings)
        super().__init__(num_stages=4, out_indices=out_indices, frozen_stages=frozen_stages, norm_eval=norm_eval)
        kwargs: dict[str, Any] = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg, "act_cfg": act_cfg}
        *widths, last = self.arch_settings[widen_factor]
        width = 24
        self.conv1 = ConvModule(3, width, 3, stride=2, padding=1, **kwargs)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layers = nn.ModuleList()
        for out_channels, num_blocks in zip(widths, self.stage_blocks, strict=True):
            first = ShuffleBlock(width, out_channels, 2, with_cp=with_cp, **kwargs)
            others = (
                ShuffleBlock(out_channels, out_channels, 1, with_cp=with_cp, **kwargs) for _ in range(num_blocks - 1)
            )
            self.layers.append(nn.Sequential(first, *others))
            width = out_channels
        self.layers.append(ConvModule(width, last, 1, **kwargs))
        self.freeze_stages()

    def stem_layers(self) -> list[nn.Module]:
        return [self.conv1, self.maxpool]

    def stage_layers(self) -> list[list[nn.Module]]:
        return [[layer] for layer in self.layers]

    def init_weights(self) -> None:
        def init_conv(conv: nn.Conv2d) -> None:
            normal_init(conv, std=0.01 if conv is self.conv1.conv else 1.0 / conv.weight.shape[1])

        init_layers(self, {nn.Conv2d: init_conv, NORM_LAYERS: partial(constant_init, val=1.0)})
