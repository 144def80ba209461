"""build_norm_layer: a normalisation layer, and its name in the state_dict, by its name in `norm_cfg`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from distcls.errors import ArgumentError
from distcls.models.common.layer_norm_2d import LayerNorm2d
from distcls.models.common.layer_type import build_layer, split_block

#: type -> (layer, what its name in the state_dict begins with)
NORM_TYPES: dict[str, tuple[type[nn.Module], str]] = {
    "BN": (nn.BatchNorm2d, "bn"),
    "BN1d": (nn.BatchNorm1d, "bn"),
    "BN2d": (nn.BatchNorm2d, "bn"),
    "BN3d": (nn.BatchNorm3d, "bn"),
    "SyncBN": (nn.SyncBatchNorm, "bn"),
    "GN": (nn.GroupNorm, "gn"),
    "LN": (nn.LayerNorm, "ln"),
    "LN2d": (LayerNorm2d, "ln"),
    "IN": (nn.InstanceNorm2d, "in"),
}


def build_norm_layer(cfg: Mapping[str, Any], num_features: int, postfix: int | str = "") -> tuple[str, nn.Module]:
    """A normalisation layer and the name to add it under, as mmcv's function of this name builds it.

    Args:
        cfg: ``{type: BN, requires_grad: True, eps: 1e-5, ...}``; requires_grad=False freezes scale and shift.
        num_features: channels that it normalises.
        postfix: end of the name: ``{type: BN}`` with postfix 1 gives "bn1".

    Raises:
        UserError: the type is not known or does not take the arguments, or GN without num_groups.
    """
    norm: nn.Module
    (layer, prefix), arguments = split_block(cfg, NORM_TYPES, "norm_cfg")
    requires_grad = arguments.pop("requires_grad", True)
    if layer is nn.GroupNorm:
        if "num_groups" not in arguments:
            raise ArgumentError("norm_cfg", "type GN needs num_groups, for example {type: GN, num_groups: 32}")
        norm = build_layer(layer, "norm_cfg", num_channels=num_features, **arguments)
    else:
        norm = build_layer(layer, "norm_cfg", num_features, **arguments)
    norm.requires_grad_(requires_grad)
    return f"{prefix}{postfix}", norm
