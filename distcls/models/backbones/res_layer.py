"""The residual blocks of ResNet, and the stages built from them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from distcls.models.common import DropPath, build_conv_layer, build_norm_layer, run_checkpointed
from distcls.models.common.batch_norm.fused import is_hooked, norm_add_relu, norm_relu, run_layers, shortcut_of


class ResidualBlock(nn.Module):
    """What BasicBlock and Bottleneck share: shortcut, drop path, checkpointing. A subclass adds layers and `trunk`.

    Args:
        in_channels, out_channels: of the block.
        expansion: out_channels / inner channels.
        mid_channels: inner channels where they are something else (ResNeXt).
        groups: of Bottleneck's 3x3 convolution.
        stride: of the block: images (N, in, H, W) -> (N, out, H / stride, W / stride).
        dilation: of its 3x3 convolution.
        downsample: the shortcut where input and output differ in shape, ending in a norm; None is the identity.
        style: Bottleneck strides in its 3x3 convolution ("pytorch") or in its first 1x1 ("caffe").
        with_cp: compute the activations again in backward instead of keeping them.
        drop_path_rate: probability to skip the branch of an image in training.
    """

    #: out_channels / inner channels
    default_expansion: ClassVar[int]
    #: the postfix of the branch's last norm, which zero_init_residual sets to 0
    last_norm: ClassVar[int]

    conv1: nn.Module
    conv2: nn.Module
    conv3: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        mid_channels: int | None = None,
        groups: int = 1,
        stride: int = 1,
        dilation: int = 1,
        downsample: nn.Sequential | None = None,
        style: Literal["pytorch", "caffe"] = "pytorch",
        with_cp: bool = False,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] = {"type": "BN"},
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.mid_channels = mid_channels or out_channels // expansion
        self.groups = groups
        self.stride = stride
        self.dilation = dilation
        self.style = style
        self.with_cp = with_cp
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self._make_branch()
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path_rate)

    def _make_branch(self) -> None:
        """Register the layers of the branch: conv1, bn1, conv2, bn2, ..."""
        raise NotImplementedError

    def _add_conv_norm(self, index: int, in_channels: int, out_channels: int, kernel_size: int, **kwargs: Any) -> None:
        """Register conv{index} and its norm, whose name follows its type and is kept in norm{index}_name."""
        conv = build_conv_layer(self.conv_cfg, in_channels, out_channels, kernel_size, bias=False, **kwargs)
        self.add_module(f"conv{index}", conv)
        name, norm = build_norm_layer(self.norm_cfg, out_channels, postfix=index)
        setattr(self, f"norm{index}_name", name)
        self.add_module(name, norm)

    def norm(self, index: int) -> nn.Module:
        return getattr(self, getattr(self, f"norm{index}_name"))

    def trunk(self, x: Tensor) -> Tensor:
        """The branch up to its last convolution: (N, in, H, W) -> (N, out, H / stride, W / stride)."""
        raise NotImplementedError

    def after_norm(self, x: Tensor) -> Tensor:
        """Applied to the output of the branch's last norm; a subclass may override it."""
        return x

    def _whole(self, x: Tensor) -> Tensor:
        residual, norm = self.trunk(x), self.norm(self.last_norm)
        if type(self).after_norm is ResidualBlock.after_norm and not self.drop_path.acts:
            return norm_add_relu(norm, self.relu, residual, *self._shortcut(x))
        shortcut = shortcut_of(x) if self.downsample is None else self.downsample(shortcut_of(x))
        return self.relu(shortcut + self.drop_path(self.after_norm(norm(residual))))

    def _shortcut(self, x: Tensor) -> tuple[Tensor, nn.Module | None]:
        """The shortcut before its norm, and the norm; or the whole shortcut and None, without a norm or with hooks."""
        if self.downsample is None:
            return shortcut_of(x), None
        if is_hooked(self.downsample):
            return self.downsample(shortcut_of(x)), None
        *layers, norm = self.downsample
        return run_layers(layers, shortcut_of(x)), norm

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self, self._whole, x) if self.with_cp else self._whole(x)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, the first with the stride. He et al., "Deep Residual Learning", 2015, figure 5 left."""

    default_expansion = 1
    last_norm = 2

    def _make_branch(self) -> None:
        mid, dilation = self.mid_channels, self.dilation
        self._add_conv_norm(1, self.in_channels, mid, 3, stride=self.stride, padding=dilation, dilation=dilation)
        self._add_conv_norm(2, mid, self.out_channels, 3, padding=1)

    def trunk(self, x: Tensor) -> Tensor:
        return self.conv2(norm_relu(self.norm(1), self.relu, self.conv1(x)))


class Bottleneck(ResidualBlock):
    """1x1 down, 3x3, 1x1 up. He et al., "Deep Residual Learning", 2015, figure 5 right.

    With groups and mid_channels the block of ResNeXt; a block that adds layers at its end overrides `after_norm`.
    """

    default_expansion = 4
    last_norm = 3

    def _make_branch(self) -> None:
        stride1, stride2 = (1, self.stride) if self.style == "pytorch" else (self.stride, 1)
        mid, dilation = self.mid_channels, self.dilation
        self._add_conv_norm(1, self.in_channels, mid, 1, stride=stride1)
        self._add_conv_norm(2, mid, mid, 3, stride=stride2, padding=dilation, dilation=dilation, groups=self.groups)
        self._add_conv_norm(3, mid, self.out_channels, 1)

    def trunk(self, x: Tensor) -> Tensor:
        x = norm_relu(self.norm(1), self.relu, self.conv1(x))
        return self.conv3(norm_relu(self.norm(2), self.relu, self.conv2(x)))


class ResLayer(nn.Sequential):
    """One stage of a ResNet: blocks of one width, of which the first changes size and width.

    Args:
        block: BasicBlock, Bottleneck or a subclass.
        num_blocks: how many.
        avg_down: the shortcut averages over stride x stride before its convolution, instead of striding in it.
        drop_path_rate: one per block.
        kwargs: passed to every block.
    """

    def __init__(
        self,
        block: type[ResidualBlock],
        num_blocks: int,
        in_channels: int,
        out_channels: int,
        stride: int,
        avg_down: bool,
        conv_cfg: Mapping[str, Any] | None,
        norm_cfg: Mapping[str, Any],
        drop_path_rate: Sequence[float],
        **kwargs: Any,
    ) -> None:
        downsample = None
        if stride != 1 or in_channels != out_channels:
            pool = avg_down and stride != 1
            layers: list[nn.Module] = []
            if pool:
                # ceil_mode without counting padding: the border of a map of odd size keeps its full weight
                layers.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
            conv_stride = 1 if pool else stride
            layers.append(build_conv_layer(conv_cfg, in_channels, out_channels, 1, stride=conv_stride, bias=False))
            layers.append(build_norm_layer(norm_cfg, out_channels)[1])
            downsample = nn.Sequential(*layers)
        kwargs = {**kwargs, "conv_cfg": conv_cfg, "norm_cfg": norm_cfg}
        super().__init__(
            *(
                block(
                    in_channels if i == 0 else out_channels,
                    out_channels,
                    stride=stride if i == 0 else 1,
                    downsample=downsample if i == 0 else None,
                    drop_path_rate=drop_path_rate[i],
                    **kwargs,
                )
                for i in range(num_blocks)
            )
        )
