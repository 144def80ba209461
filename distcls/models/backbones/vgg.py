"""VGG: stacks of 3x3 convolutions between poolings."""

from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

from torch import nn

from distcls.errors import ArgumentError
from distcls.models.backbones.arguments import check_choice, check_per_stage
from distcls.models.backbones.staged_backbone import StagedBackbone
from distcls.models.common import (
    NORM_LAYERS,
    ConvModule,
    FlattenMap,
    constant_init,
    init_layers,
    kaiming_init,
    normal_init,
)
from distcls.registry import BACKBONES


@BACKBONES.register
class VGG(StagedBackbone):
    """Simonyan and Zisserman, "Very Deep Convolutional Networks", 2014, https://arxiv.org/abs/1409.1556.

    Arguments and state_dict names are MMPretrain 1.2's.

    Images (N, 3, H, W) -> a tuple with the map (N, C_i, H / 2^(i+1), W / 2^(i+1)) of every stage i in out_indices; with
    num_classes its last element is the scores (N, num_classes), for images of 224 x 224 pixels only, and a ClsHead
    without neck follows.

    Args:
        depth: layers with weights, including the classifier's three.
        num_classes: 0 or less leaves the classifier out.
        num_stages: how many of the five stages to build.
        dilations: of each stage.
        out_indices: stages whose maps are returned; None: the last, or only the scores if there are any.
        frozen_stages: how many stages, counted from the first, are not trained; 0 or -1 freezes nothing.
        conv_cfg, norm_cfg, act_cfg: blocks for every ConvModule; ``norm_cfg: {type: BN}`` gives VGG with BN.
        norm_eval: BatchNorm keeps its running averages in training too.
        ceil_mode: poolings keep the last row and column of an odd map.
        with_last_pool: whether the last stage ends with a pooling.

    Raises:
        UserError: an unknown depth, stages, dilations, out_indices and frozen_stages that do not fit together, or a
            classifier after fewer than five stages; in forward, images that the classifier cannot take.
    """

    arch_settings: ClassVar[dict[int, tuple[int, ...]]] = {
        11: (1, 1, 2, 2, 2),
        13: (2, 2, 2, 2, 2),
        16: (2, 2, 3, 3, 3),
        19: (2, 2, 4, 4, 4),
    }
    widths: ClassVar[tuple[int, ...]] = (64, 128, 256, 512, 512)

    def __init__(
        self,
        depth: Literal[11, 13, 16, 19],
        num_classes: int = -1,
        num_stages: int = 5,
        dilations: tuple[int, ...] = (1, 1, 1, 1, 1),
        out_indices: tuple[int, ...] | None = None,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict = {"type": "ReLU"},  # noqa: B006
        norm_eval: bool = False,
        ceil_mode: bool = False,
        with_last_pool: bool = True,
    ) -> None:
        _check_stages(depth, num_classes, num_stages, dilations)
        # the classifier is one stage more, and its scores are always returned
        maps = (num_stages - 1,) if out_indices is None and num_classes <= 0 else tuple(out_indices or ())
        super().__init__(
            num_stages=num_stages + (num_classes > 0),
            out_indices=(*maps, num_stages) if num_classes > 0 else maps,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
        )
        self.num_classes = num_classes
        self.features = nn.Sequential()
        #: where each stage begins in `features`, and where the last one ends
        self.stage_bounds = [0]
        width = 3
        for i, num_blocks in enumerate(self.arch_settings[depth][:num_stages]):
            for _ in range(num_blocks):
                conv = ConvModule(
                    width,
                    self.widths[i],
                    3,
                    padding=dilations[i],
                    dilation=dilations[i],
                    bias=True,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                )
                self.features.append(conv)
                width = self.widths[i]
            if i < num_stages - 1 or with_last_pool:
                self.features.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=ceil_mode))
            self.stage_bounds.append(len(self.features))
        if num_classes > 0:
            self.flatten = FlattenMap(7, image_size=224, owner="VGG")
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, num_classes),
            )
        self.freeze_stages()

    def stage_layers(self) -> list[list[nn.Module]]:
        layers, bounds = list(self.features), self.stage_bounds
        stages = [layers[start:end] for start, end in pairwise(bounds)]
        return [*stages, [self.flatten, self.classifier]] if self.num_classes > 0 else stages

    def init_weights(self) -> None:
        one, small = partial(constant_init, val=1.0), partial(normal_init, std=0.01)
        init_layers(self, {nn.Conv2d: kaiming_init, nn.Linear: small, NORM_LAYERS: one})


def _check_stages(depth: int, num_classes: int, num_stages: int, dilations: tuple[int, ...]) -> None:
    check_choice(VGG, "depth", depth, VGG.arch_settings)
    if not 1 <= num_stages <= 5:
        raise ArgumentError("VGG.num_stages", f"got {num_stages}, expected 1 to 5")
    check_per_stage(VGG, num_stages, {"dilations": dilations})
    if num_classes > 0 and num_stages != 5:
        raise ArgumentError("VGG.num_stages", f"got {num_stages}, but the classifier of num_classes needs all 5 stages")
