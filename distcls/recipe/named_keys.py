"""Checks the keys listed in `checkpoint.allow_changes`: each must be a key that a recipe can have."""

from collections.abc import Mapping
from typing import Any

from distcls.recipe.checker import Checker, listed
from distcls.recipe.signature import Key, Keys, keys_of_block, keys_of_part, nested, part_among
from distcls.recipe.values import convert, show
from distcls.registry import Registry, nearest

NOTHING, ANYTHING = Keys({}), Keys({}, open=True)


def check_named(checker: Checker, keys: Keys, tree: Mapping[str, Any]) -> None:
    """Report to `checker` every key in `checkpoint.allow_changes` that does not exist.

    Args:
        keys: of a whole recipe.
        tree: as written; its values may be wrong.
    """
    checkpoint = tree.get("checkpoint")
    names = checkpoint.get("allow_changes") if isinstance(checkpoint, dict) else None
    for number, name in enumerate(names if isinstance(names, list) else []):
        if isinstance(name, str) and (text := _unknown(keys, name)):
            checker.problem(("checkpoint", "allow_changes", number), text)


def _unknown(keys: Keys, name: str) -> str | None:
    above: tuple[str, ...] = ()
    for step in name.split("."):
        if step not in keys.named:
            if keys.open:
                return None
            near = nearest(step, keys.named)
            hint = f". Did you mean {'.'.join((*above, near))!r}?" if near else ""
            inside = f" below {'.'.join(above)}" if above else ""
            return f"no such key: got {show(name)}, expected {listed(keys.named) or 'nothing'}{inside}{hint}"
        keys, above = _below(keys.named[step].annotation), (*above, step)
    return None


def _below(annotation: Any) -> Keys:
    """The keys allowed below a key. For a block those of all classes of its role, as the run may have had another."""
    if part := part_among(annotation):
        return keys_of_part(part)
    blocks = nested(annotation)
    if blocks.registry and blocks.one:
        return _of_any_class(blocks.registry)
    takes_mappings = blocks.registry is None and not convert(annotation, {})[1]
    return ANYTHING if takes_mappings else NOTHING


def _of_any_class(registry: Registry) -> Keys:
    classes = [keys_of_block(registry, name) for name in registry.names()]
    named = {name: key for keys in classes for name, key in keys.named.items()}
    return Keys({"type": Key(str), **named}, any(keys.open for keys in classes))
