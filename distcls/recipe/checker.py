"""The walk over a recipe's tree: which keys a mapping accepts, which class a block names, what is missing.

It goes on after a mistake, so that one report has them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import pydantic_core

from distcls.recipe.errors import KeyPath, Problem
from distcls.recipe.signature import (
    ABSENT,
    REQUIRED,
    Key,
    Keys,
    accepts_null,
    keys_of_block,
    keys_of_part,
    nested,
    part_among,
    part_of,
)
from distcls.recipe.source import Source
from distcls.recipe.values import convert, describe, plain, show, value_schema
from distcls.registry import Registry, did_you_mean, nearest

_LISTED = 12  # accepted names in a message: more would hide the mistake


class Checker:
    """Collects in `problems` what is wrong with a source."""

    def __init__(self, source: Source, registries: Sequence[Registry]) -> None:
        self.source = source
        self.registries = {registry.role: registry for registry in registries}
        self.problems = list(source.problems)
        self.meant: set[KeyPath] = set()  # keys that were written, but misspelt

    def problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(self.source.problem(path, text))

    def mapping(self, keys: Keys, tree: Mapping[str, Any], path: KeyPath = ()) -> dict[str, Any]:
        """The values that the user wrote, converted."""
        for name in tree:
            if name not in keys.named and not keys.open:
                hint = did_you_mean(name, keys.named)
                self.meant.add((*path, nearest(name, keys.named) or name))
                accepted = listed(keys.named) or "only the type"
                self.problem((*path, name), f"unknown key: expected {accepted}.{hint}".removesuffix("."))
        for name, key in keys.named.items():
            # A misspelt key is one mistake, not also a missing one; and a base that cannot be read may hold the key.
            if key.default is REQUIRED and name not in tree and (*path, name) not in self.meant:
                self.missing(path, name, self.expected(key))
        return {
            name: self.value(keys.named[name], tree[name], (*path, name)) if name in keys.named else tree[name]
            for name in tree
        }

    def missing(self, path: KeyPath, name: str, expected: str) -> None:
        """The place is the mapping that lacks the key. A base that cannot be read may have it."""
        if self.source.complete:
            self.problems.append(Problem(self.source.at(path), (*path, name), f"missing key: expected {expected}"))

    def expected(self, key: Key) -> str:
        blocks = nested(key.annotation)
        if blocks.registry:
            return f"{'a list of blocks' if not blocks.one else 'a block'} such as {self.example(blocks.registry)}"
        if part := part_of(key.annotation):
            return f"a mapping with {listed(keys_of_part(part).named)}"
        return "a value" if key.annotation is Any else describe(value_schema(key.annotation))

    def value(self, key: Key, value: Any, path: KeyPath) -> Any:
        blocks, part, null = nested(key.annotation), part_of(key.annotation), accepts_null(key.annotation)
        if isinstance(value, dict) and (written := part_among(key.annotation)):
            return self.mapping(keys_of_part(written), value, path)
        if not (blocks.registry or part):
            converted, mistakes = (value, []) if key.annotation is Any else convert(key.annotation, value)
            for below, text in mistakes:
                self.problem((*path, *below), text)
            return converted
        if value is None and null:
            return None
        if blocks.registry and blocks.many and isinstance(value, list):
            return [self.block(blocks.registry, item, (*path, i)) for i, item in enumerate(value)]
        if blocks.registry and blocks.one and not (null and value == "None"):
            return self.block(blocks.registry, value, path)
        hint = ". Did you mean null?" if null and value == "None" else ""
        expected = ("null or " if null else "") + self.expected(key)
        self.problem(path, f"wrong type: got {show(value)}, expected {expected}{hint}")
        return value

    def block(self, registry: Registry, block: Any, path: KeyPath) -> Any:
        """``{type: NAME, argument: value, ...}`` against the signature of the class NAME."""
        registry = self.registries.get(registry.role, registry)
        if not isinstance(block, dict):
            named = show(block) if not (isinstance(block, str) and block in registry) else f"only the name {block!r}"
            self.problem(path, f"wrong type: got {named}, expected a block such as {self.example(registry, block)}")
        elif "type" not in block:
            self.missing(path, "type", f"the name of {article(registry.role)}: {listed(registry.names())}")
        elif (name := block["type"]) not in registry.names():
            role = next((one.role for one in self.registries.values() if name in one.names()), "")
            what = f"{article(role)}, not {article(registry.role)}" if role else f"unknown {registry.role}"
            hint = did_you_mean(str(name), registry.names())
            none = f"a registered {registry.role}, and none is: is a plug-in missing?"
            self.problem(
                (*path, "type"),
                f"{what}: got {show(name)}, expected {listed(registry.names()) or none}.{hint}".removesuffix("."),
            )
        else:
            arguments = {key: value for key, value in block.items() if key != "type"}
            for supplied in [key for key in arguments if key in registry.given]:
                self.problem(
                    (*path, supplied),
                    f"not for the recipe: distcls supplies {supplied!r} of {article(registry.role)}; remove the key",
                )
                del arguments[supplied]
            return {"type": name, **self.mapping(keys_of_block(registry, name), arguments, path)}
        return block

    def example(self, registry: Registry, name: Any = None) -> str:
        names = self.registries.get(registry.role, registry).names()
        return f"{{type: {name if name in names else names[0] if names else 'NAME'}}}"


def filled(keys: Keys, tree: Mapping[str, Any], registries: Mapping[str, Registry]) -> dict[str, Any]:
    """A checked mapping as JSON-able values, with the default of every key that was not written.

    A default that only Python can make (a class, a function) is left out: reading the result gives that default again.
    """
    named = keys.named
    whole = {key: one.default for key, one in named.items()} | dict(tree)
    result: dict[str, Any] = {}
    for key, value in whole.items():
        annotation = named[key].annotation if key in named else Any
        if value is REQUIRED or value is ABSENT:
            continue
        if (part := part_of(annotation)) and value is not None:
            given: Any = value.model_dump() if isinstance(value, pydantic.BaseModel) else value
            result[key] = filled(keys_of_part(part), given, registries)
        elif (registry := nested(annotation).registry) and value is not None:
            many = isinstance(value, list)
            blocks = [_filled_block(registry, one, registries) for one in (value if many else [value])]
            result[key] = blocks if many else blocks[0]
        else:
            try:
                result[key] = plain(annotation, value)
            except pydantic_core.PydanticSerializationError:
                continue
    return result


def _filled_block(registry: Registry, block: Mapping[str, Any], registries: Mapping[str, Registry]) -> dict[str, Any]:
    registry = registries.get(registry.role, registry)
    arguments = {key: value for key, value in block.items() if key != "type"}
    return {
        "type": block["type"],
        **filled(keys_of_block(registry, block["type"]), arguments, registries),
    }


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """``a, b or c``; a long list is cut."""
    names = list(names)
    if len(names) > _LISTED:
        return f"one of {', '.join(names[: _LISTED - 2])} ... ({len(names)} in all)"
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
