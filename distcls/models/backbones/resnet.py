"""ResNet and its variants V1c and V1d."""

from functools import partial
from typing import Any, ClassVar, Literal

from torch import nn

from distcls.errors import ArgumentError
from distcls.models.backbones.arguments import check_choice, check_per_stage
from distcls.models.backbones.res_layer import BasicBlock, Bottleneck, ResidualBlock, ResLayer
from distcls.models.backbones.residual_backbone import ResidualBackbone
from distcls.models.common import ConvModule, DropRate, drop_path_rates
from distcls.registry import BACKBONES


@BACKBONES.register
class ResNet(ResidualBackbone):
    """ResNet (style caffe: strides where the paper has them; style pytorch: "v1.5").

    He et al., "Deep Residual Learning for Image Recognition", 2015, https://arxiv.org/abs/1512.03385. Arguments and
    state_dict names are MMPretrain 1.2's; the names are also torchvision's.

    Images (N, 3, H, W) -> a tuple with the map (N, C_i, H / 2^(i+2), W / 2^(i+2)) of every stage i in out_indices.

    Args:
        depth: layers, which fixes the block and how many of it each stage has.
        in_channels: of the images.
        stem_channels: width of the stem.
        base_channels: inner width of the blocks of stage 0; it doubles with every stage.
        expansion: output width / inner width; None takes the block's own, 1 for BasicBlock and 4 for Bottleneck.
        num_stages: how many of the four stages to build.
        strides, dilations: of each stage.
        out_indices: stages whose maps are returned.
        style: where a Bottleneck strides: "pytorch" in its 3x3 convolution, "caffe" in its first 1x1.
        deep_stem: three 3x3 convolutions in place of one 7x7.
        avg_down: shortcuts average before their convolution instead of striding in it.
        frozen_stages: the stem and this many stages, counted from the first, are not trained; 0 freezes the stem only,
            -1 nothing.
        conv_cfg, norm_cfg: blocks for build_conv_layer and build_norm_layer. The convolution BlurPoolConv2d blurs
            before it strides, as ffcv-imagenet's networks do.
        norm_eval: BatchNorm keeps its running averages in training too.
        with_cp: compute the blocks' activations again in backward instead of keeping them.
        zero_init_residual: the last norm of every block starts at 0, so that each block starts as the identity.
        drop_path_rate: probability to skip the last block; the others' grows to it linearly from 0.

    Raises:
        UserError: stages, strides, dilations, out_indices and frozen_stages do not fit together, or an unknown depth.
    """

    arch_settings: ClassVar[dict[int, tuple[type[ResidualBlock], tuple[int, ...]]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152],
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        expansion: int | None = None,
        num_stages: int = 4,
        strides: tuple[int, ...] = (1, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        out_indices: tuple[int, ...] = (3,),
        style: Literal["pytorch", "caffe"] = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = {"type": "BN", "requires_grad": True},  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        drop_path_rate: DropRate = 0.0,
    ) -> None:
        _check_stages(type(self), depth, num_stages, strides, dilations)
        super().__init__(
            num_stages=num_stages, out_indices=out_indices, frozen_stages=frozen_stages, norm_eval=norm_eval
        )
        self.depth = depth
        self.in_channels = in_channels
        self.base_channels = base_channels
        self.style = style
        self.deep_stem = deep_stem
        self.avg_down = avg_down
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.with_cp = with_cp
        self.zero_init_residual = zero_init_residual
        self.block, stage_blocks = self.arch_settings[depth]
        self.stage_blocks = stage_blocks[:num_stages]
        self.expansion = expansion or self.block.default_expansion

        self._make_stem_layer(in_channels, stem_channels)
        rates = drop_path_rates(drop_path_rate, sum(self.stage_blocks))
        width = stem_channels
        for i, num_blocks in enumerate(self.stage_blocks):
            out_channels = base_channels * self.expansion * 2**i
            stage = self.make_res_layer(
                block=self.block,
                num_blocks=num_blocks,
                in_channels=width,
                out_channels=out_channels,
                expansion=self.expansion,
                stride=strides[i],
                dilation=dilations[i],
                style=style,
                avg_down=avg_down,
                with_cp=with_cp,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                drop_path_rate=rates[:num_blocks],
            )
            self.add_module(f"layer{i + 1}", stage)
            rates = rates[num_blocks:]
            width = out_channels
        self.freeze_stages()

    def make_res_layer(self, **kwargs: Any) -> ResLayer:
        """One stage; a subclass adds what its blocks take beyond ResNet's."""
        return ResLayer(**kwargs)

    def _make_stem_layer(self, in_channels: int, base_channels: int) -> None:
        """Register what comes before stage 0, in the order in which it runs. A subclass may override it.

        Args:
            in_channels: of the images.
            base_channels: of the stem's output.
        """
        if self.deep_stem:
            half = base_channels // 2
            layer = partial(ConvModule, kernel_size=3, padding=1, conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg)
            self.stem = nn.Sequential(layer(in_channels, half, stride=2), layer(half, half), layer(half, base_channels))
        else:
            self._add_stem_conv(in_channels, base_channels, kernel_size=7, stride=2)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)


@BACKBONES.register
class ResNetV1c(ResNet):
    """ResNet with the deep stem. He et al., "Bag of Tricks", 2018, https://arxiv.org/abs/1812.01187, model C."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(deep_stem=True, avg_down=False, **kwargs)


@BACKBONES.register
class ResNetV1d(ResNet):
    """ResNet with the deep stem and averaging shortcuts. He et al., "Bag of Tricks", 2018, model D."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(deep_stem=True, avg_down=True, **kwargs)


def _check_stages(
    cls: type[ResNet], depth: int, num_stages: int, strides: tuple[int, ...], dilations: tuple[int, ...]
) -> None:
    check_choice(cls, "depth", depth, cls.arch_settings)
    if not 1 <= num_stages <= 4:
        raise ArgumentError(f"{cls.__name__}.num_stages", f"got {num_stages}, expected 1 to 4")
    check_per_stage(cls, num_stages, {"strides": strides, "dilations": dilations})
