"""Arguments that several backbones share: a size by name, stages by number."""

from collections.abc import Mapping
from typing import Any

from distcls.errors import UserError
from distcls.registry import did_you_mean


def find_arch(cls: type, arch: str | Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of `known` under the name `arch`, or `arch` itself if it has the keys that those entries have.

    A mapping needs the keys that all entries have, and may have those that some have.

    Raises:
        UserError: an unknown name, or a mapping with other keys.
    """
    if isinstance(arch, str):
        name = arch if arch in known else arch.lower()
        if name not in known:
            hint = did_you_mean(arch, known)
            raise UserError(f"{cls.__name__}.arch: got {arch!r}, expected one of {', '.join(known)}.{hint}")
        return known[name]
    entries = list(known.values())
    needed = [key for key in entries[0] if all(key in entry for entry in entries)]
    if not set(needed) <= set(arch) <= {key for entry in entries for key in entry}:
        raise UserError(f"{cls.__name__}.arch: got a mapping with {', '.join(arch)}, expected {', '.join(needed)}")
    return arch


def stage_indices(cls: type, out_indices: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """`out_indices` as numbers from 0; negative ones count from the last of `count`.

    Raises:
        UserError: none, or one out of range.
    """
    indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    if not indices or not all(-count <= i < count for i in indices):
        raise UserError(f"{cls.__name__}.out_indices: got {indices}, expected numbers from {-count} to {count - 1}")
    return tuple(i % count for i in indices)


def check_frozen_stages(cls: type, frozen_stages: int, lowest: int, highest: int) -> None:
    """Raises:
    UserError: out of range.
    """
    if not lowest <= frozen_stages <= highest:
        raise UserError(f"{cls.__name__}.frozen_stages: got {frozen_stages}, expected {lowest} to {highest}")


def per_item(cls: type, argument: str, cfgs: Any, count: int) -> list[dict[str, Any]]:
    """`layer_cfgs` and the like: one mapping for all of `count` layers, or a list with one for each.

    Raises:
        UserError: a list of another length.
    """
    if isinstance(cfgs, Mapping):
        return [dict(cfgs)] * count
    if len(cfgs) != count:
        raise UserError(f"{cls.__name__}.{argument}: got {len(cfgs)} of them, expected one for each of {count}")
    return [dict(cfg) for cfg in cfgs]
