"""Arguments that several backbones share: a size by name, stages by number."""

from collections.abc import Collection, Mapping, Sized
from typing import Any

from distcls.errors import ArgumentError
from distcls.registry import did_you_mean


def find_arch(cls: type, arch: str | Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of `known` named `arch`, or `arch` itself if it is a mapping with the keys of such an entry.

    A mapping must have the keys that all entries have, and may have those that some have.

    Raises:
        UserError: an unknown name, or a mapping with other keys.
    """
    if isinstance(arch, str):
        name = arch if arch in known else arch.lower()
        if name not in known:
            hint = did_you_mean(arch, known)
            raise ArgumentError(f"{cls.__name__}.arch", f"got {arch!r}, expected one of {', '.join(known)}.{hint}")
        return known[name]
    entries = list(known.values())
    needed = [key for key in entries[0] if all(key in entry for entry in entries)]
    if not set(needed) <= set(arch) <= {key for entry in entries for key in entry}:
        raise ArgumentError(
            f"{cls.__name__}.arch", f"got a mapping with {', '.join(arch)}, expected {', '.join(needed)}"
        )
    return arch


def stage_indices(cls: type, out_indices: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """`out_indices` as non-negative numbers; negative ones count from the last of `count`.

    Raises:
        UserError: there is none, or one is out of range.
    """
    indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    if not indices or not all(-count <= i < count for i in indices):
        raise ArgumentError(
            f"{cls.__name__}.out_indices", f"got {indices}, expected numbers from {-count} to {count - 1}"
        )
    return tuple(i % count for i in indices)


def check_frozen_stages(cls: type, frozen_stages: int, lowest: int, highest: int) -> None:
    """Check that `frozen_stages` is a number from `lowest` to `highest`.

    Raises:
        ArgumentError: it is not.
    """
    if not lowest <= frozen_stages <= highest:
        raise ArgumentError(f"{cls.__name__}.frozen_stages", f"got {frozen_stages}, expected {lowest} to {highest}")


def check_choice(cls: type, argument: str, value: Any, known: Collection[Any]) -> None:
    """Check that `value` is one of `known`.

    Raises:
        ArgumentError: it is not.
    """
    if value not in known:
        raise ArgumentError(
            f"{cls.__name__}.{argument}", f"got {value!r}, expected one of {', '.join(map(str, known))}"
        )


def check_heads(cls: type, embed_dims: int, num_heads: int) -> None:
    """Check that the channels of an attention layer are divisible by the number of heads.

    Raises:
        ArgumentError: they are not.
    """
    if num_heads < 1 or embed_dims % num_heads:
        raise ArgumentError(
            f"{cls.__name__}.arch", f"got {num_heads} heads for {embed_dims} channels, expected a divisor of these"
        )


def check_per_stage(cls: type, num_stages: int, arguments: Mapping[str, Sized]) -> None:
    """Check that each of `arguments` (name -> value) has one entry for each stage.

    Raises:
        ArgumentError: one does not.
    """
    for argument, values in arguments.items():
        if len(values) != num_stages:
            raise ArgumentError(
                f"{cls.__name__}.{argument}",
                f"got {len(values)} of them, expected one for each of {num_stages} stages",
            )


def per_item(cls: type, argument: str, cfgs: Any, count: int) -> list[dict[str, Any]]:
    """Expand `layer_cfgs` and the like to a list: one mapping for all of `count` layers, or a list with one for each.

    Raises:
        UserError: a list of another length.
    """
    if isinstance(cfgs, Mapping):
        return [dict(cfgs)] * count
    if len(cfgs) != count:
        raise ArgumentError(f"{cls.__name__}.{argument}", f"got {len(cfgs)} of them, expected one for each of {count}")
    return [dict(cfg) for cfg in cfgs]
