"""build_activation_layer: an activation by its name in `act_cfg`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from distcls.models.common.layer_type import build_layer, split_block

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "LeakyReLU": nn.LeakyReLU,
    "PReLU": nn.PReLU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "SiLU": nn.SiLU,
    "Swish": nn.SiLU,  # mmcv's Swish is x * sigmoid(x), that is SiLU
    "HSigmoid": nn.Hardsigmoid,  # mmcv's defaults (x + 3) / 6
    "HSwish": nn.Hardswish,
}
WITHOUT_INPLACE = (nn.PReLU, nn.GELU, nn.Sigmoid, nn.Tanh)


def build_activation_layer(cfg: Mapping[str, Any], inplace: bool = False) -> nn.Module:
    """The activation that `cfg` names, e.g. ``{type: LeakyReLU, negative_slope: 0.1}``.

    Args:
        inplace: the default of the layer's own `inplace`, where it has one and `cfg` does not set it.

    Raises:
        UserError: the type is not known, or does not take the arguments.
    """
    layer, arguments = split_block(cfg, ACTIVATIONS, "act_cfg")
    if layer not in WITHOUT_INPLACE:
        arguments.setdefault("inplace", inplace)
    return build_layer(layer, "act_cfg", **arguments)
