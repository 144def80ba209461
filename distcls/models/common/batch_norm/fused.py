"""BatchNorm fused with the layers after it into one autograd function: half the memory traffic of separate layers.

`norm_relu`, `norm_add_relu` and `norm_relu_pool` take the plain layers and compute the same up to rounding: with Triton
kernels if the map is channels-last on a GPU, else by calling the layers. torch.compile sees the plain layers.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distcls.models.common.batch_norm.launches import Launches

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # sums in float32 are not accurate enough for float64


def norm_relu(norm: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    """relu(norm(x)): (N, C, H, W) -> the same."""
    if not (_fuses(norm, x) and _is_relu(relu)):
        return relu(norm(x))
    return _fused(norm, x)


def norm_add_relu(
    norm: nn.Module, relu: nn.Module, x: Tensor, shortcut: Tensor, shortcut_norm: nn.Module | None = None
) -> Tensor:
    """relu(norm(x) + shortcut), or + shortcut_norm(shortcut): all (N, C, H, W)."""
    fuses = _fuses(norm, x) and x.shape[1] % 8 == 0 and _is_rows(shortcut) and shortcut.dtype == x.dtype
    if not (fuses and _is_relu(relu)) or not (shortcut_norm is None or _fuses(shortcut_norm, shortcut)):
        return relu(norm(x) + (shortcut if shortcut_norm is None else shortcut_norm(shortcut)))
    return _fused(norm, x, shortcut, shortcut_norm)


def norm_relu_pool(norm: nn.Module, relu: nn.Module, pool: nn.Module, x: Tensor) -> Tensor:
    """pool(relu(norm(x))): (N, C, H, W) -> (N, C, H', W')."""
    if not (_fuses(norm, x) and _is_relu(relu) and _is_stem_pool(pool)):
        return pool(norm_relu(norm, relu, x))
    return _fused(norm, x, pool=True)


def shortcut_of(x: Tensor) -> Tensor:
    """The same values as x, for the shortcut of the block that takes x.

    A fused result is used twice, by the next block's first layer and by its shortcut. The second use is an output of
    its own, so that backward receives two gradients and adds them while reading, instead of autograd writing their sum
    to memory first.
    """
    return getattr(x, "second_use", x)


def _fused(
    norm: Any, x: Tensor, shortcut: Tensor | None = None, shortcut_norm: Any = None, pool: bool = False
) -> Tensor:
    of_shortcut = (None, None) if shortcut_norm is None else (shortcut_norm.weight, shortcut_norm.bias)
    with torch.cuda.device_of(x):  # Triton launches on the current device; autograd sets it for backward
        y, second = _FusedBatchNorm.apply(x, shortcut, norm.weight, norm.bias, *of_shortcut, norm, shortcut_norm, pool)
    if torch.is_grad_enabled():
        y.second_use = second
    return y


def run_layers(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Run the layers in sequence, with consecutive BatchNorm, ReLU and max pooling fused where possible."""
    rest = list(layers)
    while rest:
        layer = rest.pop(0)
        if type(layer) is nn.BatchNorm2d and rest and type(rest[0]) is nn.ReLU:
            relu = rest.pop(0)
            pools = rest and type(rest[0]) is nn.MaxPool2d
            x = norm_relu_pool(layer, relu, rest.pop(0), x) if pools else norm_relu(layer, relu, x)
        else:
            x = layer(x)
    return x


def _fuses(norm: nn.Module, x: Tensor) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and not is_hooked(norm)
        and (norm.training or not torch.is_grad_enabled())
        and on_device(x)
        and _is_rows(x)
        and x.dtype in _DTYPES
        and x.numel() > x.shape[1]  # for a single value per channel the layer raises its own error
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def is_hooked(layer: nn.Module) -> bool:
    """Whether the layer has hooks and must be called: ZeRO-3 gathers weights in them, users inspect outputs."""
    hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
    return any(hooks)


@cache
def _kernels(way: str) -> Any:
    """The module of the "forward" or "backward" kernels; None if Triton is not installed.

    Imported here, so that only a process with a GPU pays for it.
    """
    try:
        return import_module(f"distcls.models.common.batch_norm.{way}_kernels")
    except ImportError:
        return None


def on_device(x: Tensor) -> bool:
    """Whether the kernels run where x is."""
    return x.is_cuda and _kernels("forward") is not None


def _is_rows(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _is_relu(layer: nn.Module) -> bool:
    return type(layer) is nn.ReLU and not is_hooked(layer)


def _is_stem_pool(pool: nn.Module) -> bool:
    return (
        type(pool) is nn.MaxPool2d
        and (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
        and not (pool.ceil_mode or pool.dilation != 1 or pool.return_indices or is_hooked(pool))
    )


class _FusedBatchNorm(torch.autograd.Function):
    """(x, shortcut or None, weights and biases of both norms, the norms, pool?) -> (y, y for its second use).

    The formulas are in forward_kernels.py and backward_kernels.py.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shortcut: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        shortcut_weight: Tensor | None,
        shortcut_bias: Tensor | None,
        norm: Any,
        shortcut_norm: Any,
        pool: bool,
    ) -> tuple[Tensor, Tensor]:
        shape = Launches(x)
        table = _statistics(norm, x, shape)
        scaled = None if shortcut_norm is None else shortcut
        shortcut_table = None if scaled is None else _statistics(shortcut_norm, scaled, shape)
        positive = index = None
        if pool:
            size = (x.shape[0], shape.channels, *shape.pooled)
            y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            index = torch.empty_like(y, dtype=torch.uint8)
            rows = x.shape[0] * shape.pooled[0] * shape.pooled[1]
            shape.over_rows(_kernels("forward").forward_pooled, rows)(
                x, table, y, index, rows, shape.channels, shape.height, shape.width, *shape.pooled
            )
        else:
            y = torch.empty_like(x)
            add = shortcut is not None
            keep = add and norm.training
            positive = x.new_empty((shape.rows, shape.channels // 8), dtype=torch.uint8) if keep else None
            shape.over_rows(_kernels("forward").forward, shape.rows)(
                x, shortcut, table, shortcut_table, y, positive, shape.rows, shape.channels,
                ADD=add, SCALED=shortcut_norm is not None, KEEP=keep, **shape.direction,
            )  # fmt: skip
        ctx.add = shortcut is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scaled, weight, shortcut_weight, table, shortcut_table, positive, index)
        return y, y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, first: Tensor | None, second: Tensor | None) -> tuple[Tensor | None, ...]:
        x, scaled, weight, shortcut_weight, table, shortcut_table, positive, index = ctx.saved_tensors
        shape = Launches(x, two=scaled is not None)
        gradient, *others = (_as_rows(one) for one in (first, second) if one is not None)
        other = others[0] if others else None
        if index is not None:
            gradient, other = _unpooled(gradient, other, index, shape, x), None
        joined = torch.empty_like(x) if ctx.add else None
        parts = torch.empty((3, shape.parts, shape.channels), dtype=torch.float32, device=x.device)
        shape.over_parts(_kernels("backward").backward_sums)(
            gradient, other, x, scaled, positive, table, shortcut_table, joined, parts[0], parts[1], parts[2],
            shape.rows, shape.channels, shape.rows_each,
            ADD=ctx.add, TWO=other is not None, SCALED=scaled is not None,
        )  # fmt: skip
        if joined is not None:
            gradient, other = joined, None

        factors = _factors(shape, parts[0], parts[1], weight, table)
        own, shortcut, shortcut_factors = torch.empty_like(x), joined, None
        of_shortcut: tuple[Tensor | None, Tensor | None] = (None, None)
        if scaled is not None:
            shortcut = torch.empty_like(x)
            shortcut_factors = _factors(shape, parts[0], parts[2], shortcut_weight, shortcut_table)
            of_shortcut = _of_norm(shortcut_factors, shortcut_weight)
        shape.over_rows(_kernels("backward").backward, shape.rows)(
            gradient, other, x, table, factors, own, scaled, shortcut_factors, shortcut, shape.rows, shape.channels,
            ADD=ctx.add, TWO=other is not None, SCALED=scaled is not None, **shape.direction,
        )  # fmt: skip
        return own, shortcut, *_of_norm(factors, weight), *of_shortcut, None, None, None


def _factors(shape: Launches, sums: Tensor, products: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """(5, C), see `backward_factors`."""
    factors = torch.empty((5, shape.channels), dtype=torch.float32, device=sums.device)
    shape.over_channels(_kernels("backward").backward_factors)(
        sums, products, weight, table, factors, shape.parts, shape.rows, shape.channels
    )
    return factors


def _of_norm(factors: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias."""
    return factors[3].to(weight.dtype), factors[4].to(weight.dtype)


def _unpooled(gradient: Tensor, other: Tensor | None, index: Tensor, shape: Launches, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    windows = index.numel() // shape.channels
    shape.over_rows(_kernels("backward").unpooled, windows)(
        gradient, other, index, out, windows, shape.channels, shape.height, shape.width, *shape.pooled,
        TWO=other is not None,
    )  # fmt: skip
    return out


def _as_rows(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _statistics(norm: Any, x: Tensor, shape: Launches) -> Tensor:
    """(4, C): mean, 1 / deviation, scale and shift. In training those of the batch, which update the running ones."""
    if not norm.training:
        return _kept_statistics(norm)
    parts = torch.empty((2, shape.parts, shape.channels), dtype=torch.float32, device=x.device)
    shape.over_parts(_kernels("forward").moments)(x, parts[0], parts[1], shape.rows, shape.channels, shape.rows_each)
    table = torch.empty((4, shape.channels), dtype=torch.float32, device=x.device)
    shape.over_channels(_kernels("forward").normalisation)(
        parts[0], parts[1], norm.weight, norm.bias, norm.running_mean, norm.running_var, table,
        shape.parts, shape.rows, shape.channels, shape.rows_each, norm.eps, norm.momentum,
    )  # fmt: skip
    norm.num_batches_tracked.add_(1)
    return table


def _kept_statistics(norm: Any) -> Tensor:
    inverse = torch.rsqrt(norm.running_var + norm.eps)
    scale = norm.weight * inverse
    return torch.stack([norm.running_mean, inverse, scale, norm.bias - norm.running_mean * scale])
