"""Weight initialisation: functions named as in mmcv and mmengine, and the traversal that applies them to a part."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

#: The layers whose weight is a scale: initialised to 1, and left out of weight decay.
NORM_LAYERS: tuple[type[nn.Module], ...] = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)

#: Initialisation of a transformer's linear layers; "mmpretrain" leaves it to the backbone. See `init_linear_layers`.
LinearInit = Literal["mmpretrain", "xavier_uniform", "trunc_normal"]

Rules = Mapping[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Any], None]]


def init_layers(part: nn.Module, rules: Rules) -> None:
    """Initialise the layers under `part`, in registration order, each by the first of `rules` that matches its type.

    A descendant with an `init_weights` of its own is initialised by that instead, and the rules do not apply inside it,
    so that no layer is initialised twice.

    Example:
        init_layers(self, {nn.Conv2d: kaiming_init, nn.Linear: partial(normal_init, std=0.01)})
    """
    for child in part.children():
        initialise_itself = getattr(child, "init_weights", None)
        if initialise_itself is not None:
            initialise_itself()
            continue
        for layer_types, initialise in rules.items():
            if isinstance(child, layer_types):
                initialise(child)
                break
        init_layers(child, rules)


def init_linear_layers(part: nn.Module, how: LinearInit) -> None:
    """Initialise every linear layer under `part`, with biases of 0; "mmpretrain" changes none.

    Args:
        how: "trunc_normal": N(0, 0.02^2) truncated at +-2, as in DeiT's and Swin's own code. "xavier_uniform": as in
            the original ViT's and MAE's; the three matrices that a `qkv` layer holds are initialised separately.
    """
    for name, linear in part.named_modules():
        if how == "mmpretrain" or not isinstance(linear, nn.Linear):
            continue
        for matrix in linear.weight.detach().chunk(3 if name.endswith("qkv") else 1):
            if how == "xavier_uniform":
                nn.init.xavier_uniform_(matrix)
            else:
                nn.init.trunc_normal_(matrix, std=0.02)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


def constant_init(module: nn.Module, val: float, bias: float = 0.0) -> None:
    """Weight := `val`, bias := `bias`."""
    _fill(module, lambda weight: nn.init.constant_(weight, val), bias)


def normal_init(module: nn.Module, mean: float = 0.0, std: float = 1.0, bias: float = 0.0) -> None:
    """Weight ~ N(mean, std^2), bias := `bias`."""
    _fill(module, lambda weight: nn.init.normal_(weight, mean, std), bias)


def trunc_normal_init(
    module: nn.Module, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, bias: float = 0.0
) -> None:
    """Weight ~ N(mean, std^2) truncated to [a, b] (absolute bounds, not in units of `std`), bias := `bias`."""
    _fill(module, lambda weight: nn.init.trunc_normal_(weight, mean, std, a, b), bias)


def uniform_init(module: nn.Module, a: float = 0.0, b: float = 1.0, bias: float = 0.0) -> None:
    """Weight ~ U(a, b), bias := `bias`."""
    _fill(module, lambda weight: nn.init.uniform_(weight, a, b), bias)


def xavier_init(
    module: nn.Module, gain: float = 1.0, bias: float = 0.0, distribution: Literal["normal", "uniform"] = "normal"
) -> None:
    """Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010."""
    draw = nn.init.xavier_uniform_ if distribution == "uniform" else nn.init.xavier_normal_
    _fill(module, lambda weight: draw(weight, gain=gain), bias)


def kaiming_init(
    module: nn.Module,
    a: float = 0.0,
    mode: Literal["fan_in", "fan_out"] = "fan_out",
    nonlinearity: Literal["relu", "leaky_relu"] = "relu",
    bias: float = 0.0,
    distribution: Literal["normal", "uniform"] = "normal",
) -> None:
    """He et al., "Delving Deep into Rectifiers", 2015; the defaults are those of the ResNet authors' later code."""
    draw = nn.init.kaiming_uniform_ if distribution == "uniform" else nn.init.kaiming_normal_
    _fill(module, lambda weight: draw(weight, a=a, mode=mode, nonlinearity=nonlinearity), bias)


def _fill(module: nn.Module, draw: Callable[[Tensor], Tensor], bias: float) -> None:
    """Set weight and bias, which are None in a norm without affine parameters or a convolution without bias."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        draw(weight)
    if isinstance(getattr(module, "bias", None), Tensor):
        nn.init.constant_(module.bias, bias)  # type: ignore[arg-type]


#: Initialisation of most convolutional networks, as in MMPretrain.
CONVOLUTIONAL: Rules = {nn.Conv2d: kaiming_init, NORM_LAYERS: partial(constant_init, val=1.0)}
