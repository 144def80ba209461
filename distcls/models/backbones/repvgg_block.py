"""RepVGGBlock: three branches in training that become one convolution."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distcls.errors import ArgumentError
from distcls.models.common import (
    SELayer,
    build_activation_layer,
    build_conv_layer,
    build_norm_layer,
    run_checkpointed,
)


class RepVGGBlock(nn.Module):
    """3x3 and 1x1 convolution and, where the shapes allow it, the identity, each with a norm; the sum is activated.

    (N, in, H, W) -> (N, out, H / stride, W / stride). Figure 4 of the RepVGG paper; names as MMPretrain's RepVGGBlock.

    Args:
        dilation, groups: dilation of the 3x3 convolution, groups of both.
        se_cfg: arguments of the SELayer after the sum; None leaves it out.
        deploy: build the single convolution directly, for weights made by `switch_to_deploy`.
    """

    branch_reparam: nn.Conv2d
    branch_norm: nn.BatchNorm2d | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        se_cfg: Mapping[str, Any] | None = None,
        with_cp: bool = False,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] = {"type": "BN"},
        act_cfg: Mapping[str, Any] = {"type": "ReLU"},
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.dilation = dilation
        self.groups = groups
        self.with_cp = with_cp
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.deploy = deploy
        if deploy:
            self.branch_reparam = self._conv(3, bias=True)
        else:
            same_shape = out_channels == in_channels and stride == 1
            self.branch_norm = self._norm() if same_shape else None
            self.branch_3x3 = self._conv_norm(3)
            self.branch_1x1 = self._conv_norm(1)
        self.se_layer = SELayer(out_channels, **se_cfg) if se_cfg is not None else nn.Identity()
        self.act = build_activation_layer(act_cfg, inplace=True)

    def _conv(self, kernel_size: int, bias: bool) -> Any:
        dilation = self.dilation if kernel_size > 1 else 1
        return build_conv_layer(
            self.conv_cfg,
            self.in_channels,
            self.out_channels,
            kernel_size,
            stride=self.stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=self.groups,
            bias=bias,
        )

    def _norm(self) -> Any:
        return build_norm_layer(self.norm_cfg, self.out_channels)[1]

    def _conv_norm(self, kernel_size: int) -> "ConvNorm":
        return ConvNorm(self._conv(kernel_size, bias=False), self._norm())

    def _sum(self, x: Tensor) -> Tensor:
        if self.deploy:
            return self.se_layer(self.branch_reparam(x))
        out = self.branch_3x3(x) + self.branch_1x1(x)
        if self.branch_norm is not None:
            out = out + self.branch_norm(x)
        return self.se_layer(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(run_checkpointed(self, self._sum, x) if self.with_cp else self._sum(x))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Replace the branches by one convolution that computes their sum in eval mode. This cannot be undone.

        Raises:
            UserError: the norm is not BatchNorm, the only one that can be folded into a convolution.
        """
        if self.deploy:
            return
        conv, norm = self.branch_3x3.conv, self.branch_3x3.norm
        if not isinstance(norm, _BatchNorm):
            raise ArgumentError(
                "RepVGG.switch_to_deploy", f"got {type(norm).__name__} in norm_cfg, expected BN or SyncBN"
            )
        # in float64, because the branches partly cancel; this runs only once
        pointwise = F.pad(self.branch_1x1.conv.weight.double(), (1, 1, 1, 1))
        folded = [_folded(conv.weight.double(), norm), _folded(pointwise, self.branch_1x1.norm)]
        if self.branch_norm is not None:
            folded.append(_folded(_identity_kernel(conv), self.branch_norm))
        self.branch_reparam = self._conv(3, bias=True).to(conv.weight)
        weights, biases = (torch.stack(parts).sum(0) for parts in zip(*folded, strict=True))
        self.branch_reparam.load_state_dict({"weight": weights, "bias": biases})
        del self.branch_3x3, self.branch_1x1, self.branch_norm
        self.deploy = True


class ConvNorm(nn.Sequential):
    """A convolution and its norm, under these names."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__(OrderedDict(conv=conv, norm=norm))


def _identity_kernel(conv: nn.Conv2d) -> Tensor:
    """The kernel (C, C / groups, 3, 3) with which `conv` would pass its input on, float64."""
    kernel = torch.zeros_like(conv.weight, dtype=torch.float64)
    channels = torch.arange(conv.out_channels, device=kernel.device)
    kernel[channels, channels % kernel.shape[1], 1, 1] = 1
    return kernel


def _folded(kernel: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution equivalent to `kernel` followed by `norm` in eval mode."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return kernel * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale
