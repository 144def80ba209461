"""Nested state (an optimizer's `state_dict()`) <-> flat tensors and a JSON tree, exactly.

Plain JSON loses tuples, integer keys and non-finite floats, and torch's own format is a pickle. The tree writes None,
bool, int, str, finite floats and lists as they are, and everything else as an object with one of these keys:

    {"dict": [[key, value], ...]}   {"tuple": [...]}   {"float": "nan"}   {"tensor": name, "stride": [...]}
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flatten_state(obj: Any) -> tuple[dict[str, Tensor], Any]:
    """Take nested state apart.

    Args:
        obj: dicts (any scalar or tuple as key), lists, tuples, tensors, None, bool, int, float, str, nested at will.

    Returns:
        The tensors under dotted names (the same objects, no copies) and a tree for `json.dumps`. The strides of a dense
        tensor that is not row-major (channels_last) are kept: on a CPU an optimizer step over other strides may round
        differently.

    Raises:
        TypeError: an object of another type; the text says where it is.
    """
    tensors: dict[str, Tensor] = {}

    def encode(node: Any, where: str) -> Any:
        if node is None or isinstance(node, bool | int | str):
            return node
        if isinstance(node, float):
            return node if math.isfinite(node) else {"float": repr(float(node))}
        if isinstance(node, Tensor):
            name = where
            # Keys that contain dots can give equal names, and __metadata__ is reserved.
            while name in tensors or name in ("", "__metadata__"):
                name += "'"
            tensors[name] = node
            return {"tensor": name, **_stride(node)}
        if isinstance(node, dict):
            return {
                "dict": [[encode(key, f"{where} key"), encode(value, _join(where, key))] for key, value in node.items()]
            }
        if isinstance(node, list | tuple):
            items = [encode(item, _join(where, index)) for index, item in enumerate(node)]
            return items if isinstance(node, list) else {"tuple": items}
        raise TypeError(f"{where or 'the state'} is a {type(node).__name__}, which a checkpoint cannot hold")

    return tensors, encode(obj, "")


def unflatten_state(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """Undo `flatten_state`. The tensors are not copied, unless their strides have to be restored."""
    if isinstance(tree, list):
        return [unflatten_state(tensors, item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "dict" in tree:
        return {unflatten_state(tensors, key): unflatten_state(tensors, value) for key, value in tree["dict"]}
    if "tuple" in tree:
        return tuple(unflatten_state(tensors, item) for item in tree["tuple"])
    if "float" in tree:
        return float(tree["float"])
    tensor = tensors[tree["tensor"]]
    if "stride" in tree:
        return torch.empty_strided(tensor.shape, tree["stride"], dtype=tensor.dtype).copy_(tensor)
    return tensor


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _stride(tensor: Tensor) -> dict[str, list[int]]:
    """The strides of a dense tensor that is not row-major; a slice or an expanded tensor becomes row-major."""
    row_major = torch.empty(tensor.shape, device="meta").stride()
    # torch keeps strides only of dense tensors without overlap.
    preserved = torch.empty_like(tensor, device="meta").stride()
    return {"stride": list(tensor.stride())} if tensor.stride() == preserved != row_major else {}
