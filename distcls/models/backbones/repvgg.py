"""RepVGG: a plain stack of 3x3 convolutions, trained with parallel branches that are later folded into them."""

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from distcls.models.backbones.arguments import check_per_stage, find_arch
from distcls.models.backbones.repvgg_block import RepVGGBlock
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    CONVOLUTIONAL,
    ConvModule,
    init_layers,
)
from distcls.registry import BACKBONES

#: block -> groups; block 0 is the stem, and every second block after it is grouped
G2 = dict.fromkeys(range(2, 27, 2), 2)
G4 = dict.fromkeys(range(2, 27, 2), 4)


def arch_b(*width_factor: float, group_layer_map: dict[int, int] | None = None, **others: Any) -> dict[str, Any]:
    return {
        "num_blocks": (4, 6, 16, 1),
        "width_factor": width_factor,
        "group_layer_map": group_layer_map,
        "se_cfg": None,
        **others,
    }


class MTSPPF(nn.Module):
    """(N, in, H, W) -> (N, out, H, W): concatenated max poolings of growing windows; the neck of YOLOX-PAI's RepVGG.

    https://arxiv.org/abs/2208.13040; names as MMPretrain's MTSPPF.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_cfg: dict, act_cfg: dict, kernel_size: int = 5
    ) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.conv1 = ConvModule(in_channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = ConvModule(hidden * 4, out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.maxpool = nn.MaxPool2d(kernel_size, stride=1, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.conv1(x)]
        for _ in range(3):
            maps.append(self.maxpool(maps[-1]))
        return self.conv2(torch.cat(maps, dim=1))


@BACKBONES.register
class RepVGG(StagedBackbone):
    """Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", 2021, https://arxiv.org/abs/2101.03697.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map (N, C_i, H / 2^(i+2), W / 2^(i+2)) of every stage i in out_indices.

    Args:
        arch: a published network, or a mapping: num_blocks and width_factor of each stage; group_layer_map, number of a
            block -> its groups, or None; se_cfg, arguments of every block's SELayer, or None; stem_channels, 64 where
            it is left out.
        in_channels: of the images.
        base_channels: width of stage 0 at width_factor 1; it doubles with every stage.
        out_indices: stages whose maps are returned.
        strides, dilations: of each stage.
        frozen_stages: the stem and this many stages, counted from the first, are not trained; 0 freezes the stem only,
            -1 nothing.
        conv_cfg, norm_cfg, act_cfg: blocks for build_conv_layer, build_norm_layer and build_activation_layer.
        with_cp: compute the blocks' activations again in backward instead of keeping them.
        deploy: build the deployed form directly, for weights that were saved after `switch_to_deploy`.
        norm_eval: BatchNorm keeps its running averages in training too.
        add_ppf: add an MTSPPF after the last stage.

    Raises:
        UserError: an unknown arch, or strides, dilations, out_indices or frozen_stages that do not fit its stages.
    """

    arch_settings: ClassVar[dict[str, dict[str, Any]]] = {
        "A0": arch_b(0.75, 0.75, 0.75, 2.5, num_blocks=(2, 4, 14, 1)),
        "A1": arch_b(1, 1, 1, 2.5, num_blocks=(2, 4, 14, 1)),
        "A2": arch_b(1.5, 1.5, 1.5, 2.75, num_blocks=(2, 4, 14, 1)),
        "B0": arch_b(1, 1, 1, 2.5, stem_channels=64),
        "B1": arch_b(2, 2, 2, 4),
        "B1g2": arch_b(2, 2, 2, 4, group_layer_map=G2),
        "B1g4": arch_b(2, 2, 2, 4, group_layer_map=G4),
        "B2": arch_b(2.5, 2.5, 2.5, 5),
        "B2g2": arch_b(2.5, 2.5, 2.5, 5, group_layer_map=G2),
        "B2g4": arch_b(2.5, 2.5, 2.5, 5, group_layer_map=G4),
        "B3": arch_b(3, 3, 3, 5),
        "B3g2": arch_b(3, 3, 3, 5, group_layer_map=G2),
        "B3g4": arch_b(3, 3, 3, 5, group_layer_map=G4),
        "D2se": arch_b(2.5, 2.5, 2.5, 5, num_blocks=(8, 14, 24, 1), se_cfg={"ratio": 16, "divisor": 1}),
        "yolox-pai-small": arch_b(1, 1, 1, 1, num_blocks=(3, 5, 7, 3), stem_channels=32),
    }

    def __init__(
        self,
        arch: Literal[
            "A0",
            "A1",
            "A2",
            "B0",
            "B1",
            "B1g2",
            "B1g4",
            "B2",
            "B2g2",
            "B2g4",
            "B3",
            "B3g2",
            "B3g4",
            "D2se",
            "yolox-pai-small",
        ]
        | dict,
        in_channels: int = 3,
        base_channels: int = 64,
        out_indices: tuple[int, ...] = (3,),
        strides: tuple[int, ...] = (2, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006
        act_cfg: dict = {"type": "ReLU"},  # noqa: B006
        with_cp: bool = False,
        deploy: bool = False,
        norm_eval: bool = False,
        add_ppf: bool = False,
    ) -> None:
        settings = find_arch(type(self), arch, self.arch_settings)
        self.stage_blocks = tuple(settings["num_blocks"])
        super().__init__(
            num_stages=len(self.stage_blocks),
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
        )
        per_stage = {"arch.width_factor": settings["width_factor"], "strides": strides, "dilations": dilations}
        check_per_stage(type(self), len(self.stage_blocks), per_stage)
        self.in_channels = in_channels
        self.deploy = deploy
        # keys in a recipe are strings
        groups = {int(number): count for number, count in (settings["group_layer_map"] or {}).items()}
        block = partial(
            RepVGGBlock,
            se_cfg=settings["se_cfg"],
            with_cp=with_cp,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            deploy=deploy,
        )
        width = min(settings.get("stem_channels", 64), int(base_channels * settings["width_factor"][0]))
        self.stem = block(in_channels, width, stride=2)
        index = 1
        for i, num_blocks in enumerate(self.stage_blocks):
            out_channels = int(base_channels * 2**i * settings["width_factor"][i])
            blocks = []
            for j in range(num_blocks):
                blocks.append(
                    block(
                        width,
                        out_channels,
                        stride=strides[i] if j == 0 else 1,
                        dilation=dilations[i],
                        groups=groups.get(index, 1),
                    )
                )
                width = out_channels
                index += 1
            self.add_module(f"stage_{i + 1}", nn.Sequential(*blocks))
        self.ppf = MTSPPF(width, width, norm_cfg, act_cfg) if add_ppf else nn.Identity()
        self.freeze_stages()

    def stem_layers(self) -> list[nn.Module]:
        return [self.stem]

    def stage_layers(self) -> list[list[nn.Module]]:
        stages = [[getattr(self, f"stage_{i + 1}")] for i in range(len(self.stage_blocks))]
        stages[-1].append(self.ppf)
        return stages

    def init_weights(self) -> None:
        init_layers(self, CONVOLUTIONAL)

    def switch_to_deploy(self) -> None:
        """Fold every block's branches into one convolution, in place: faster, with the same output in eval mode.

        Raises:
            UserError: norm_cfg is not BatchNorm.
        """
        for module in self.modules():
            if isinstance(module, RepVGGBlock):
                module.switch_to_deploy()
        self.deploy = True
        self.train(self.training)  # frozen stages stay frozen in their new form
