"""Look up the layer that a block such as ``{type: BN, eps: 1e-3}`` names."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from distcls.errors import ArgumentError
from distcls.registry import did_you_mean

Entry = TypeVar("Entry")


def split_block(block: Mapping[str, Any], known: Mapping[str, Entry], argument: str) -> tuple[Entry, dict[str, Any]]:
    """The entry of `known` that the block's ``type`` names, and the block's other arguments.

    Raises:
        UserError: the block has no ``type`` or an unknown one; the text begins with `argument`, e.g. ``norm_cfg``.
    """
    name = str(block.get("type"))
    if name not in known:
        raise ArgumentError(argument, f"no type {name!r}.{did_you_mean(name, known)} Known: {', '.join(sorted(known))}")
    return known[name], {key: value for key, value in block.items() if key != "type"}


def build_layer(layer: Callable[..., nn.Module], argument: str, *args: Any, **kwargs: Any) -> nn.Module:
    """Construct the layer.

    Raises:
        UserError: it does not take these arguments; the text begins with `argument`.
    """
    try:
        return layer(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise ArgumentError(argument, f"cannot be built like this: {error}") from error
