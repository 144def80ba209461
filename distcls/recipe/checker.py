"""Walks over a recipe's tree and checks keys, classes and values, and finds what is missing.

It continues after a mistake, so that one report contains all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import pydantic_core

from distcls.recipe.errors import KeyPath, Problem
from distcls.recipe.foreign_names import class_meant, key_meant, value_meant
from distcls.recipe.signature import (
    ABSENT,
    REQUIRED,
    Key,
    Keys,
    accepts_null,
    keys_of_block,
    keys_of_part,
    nested,
    none_required,
    part_among,
    part_of,
    paths_of,
)
from distcls.recipe.source import Source
from distcls.recipe.values import convert, describe, either, plain, show, value_schema
from distcls.registry import ROLES, Registry

_LISTED = 12  # names listed in a message; more would hide the mistake
_PLACES = {"augmentation": " It belongs in data.augment.", "mixing": " It belongs in data.mix."}


class Checker:
    """Checks a source, and collects its mistakes in `problems`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems = list(source.problems)
        self.meant: set[KeyPath] = set()  # paths of keys that were probably meant by misspelt or misplaced ones
        self.parts: list[tuple[str, ...]] = []  # paths of all keys of the recipe's fixed parts
        # A class that a failed plug-in would have registered is not reported as a second mistake.
        self.plugin_failed = any(problem.path[:1] == ("plugins",) for problem in self.problems)

    def problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(self.source.problem(path, text))

    def mapping(self, keys: Keys, tree: Mapping[str, Any], path: KeyPath = ()) -> dict[str, Any]:
        """Check a mapping; return its values, converted."""
        self.parts = self.parts or paths_of(keys)
        for name in tree:
            if name not in keys.named and not keys.open:
                meant, hint = key_meant(name, path, keys.named, self.parts)
                self.meant.add(meant)
                accepted = listed(keys.named) or "only the type"
                self.problem((*path, name), f"unknown key: expected {accepted}.{hint}".removesuffix("."))
        for name, key in keys.named.items():
            # A misspelt key is not also reported as missing.
            if key.default is REQUIRED and name not in tree and (*path, name) not in self.meant:
                self.missing(path, name, self.expected(key))
        return {
            name: self.value(keys.named[name], tree[name], (*path, name)) if name in keys.named else tree[name]
            for name in tree
        }

    def missing(self, path: KeyPath, name: str, expected: str) -> None:
        """Report a missing key at the mapping that lacks it, unless a base that cannot be read may contain it."""
        if self.source.complete:
            self.problems.append(Problem(self.source.at(path), (*path, name), f"missing key: expected {expected}"))

    def expected(self, key: Key) -> str:
        blocks = nested(key.annotation)
        if blocks.registry:
            example = _example(blocks.registry)
            return f"a block such as {example}" if blocks.one else f"a list of blocks such as [{example}]"
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
                hint = "" if below else value_meant(path[-1], value)
                self.problem((*path, *below), f"{text}.{hint}".removesuffix("."))
            return converted
        if value is None and null:
            return None
        if blocks.registry and blocks.many and isinstance(value, list):
            return [self.block(blocks.registry, item, (*path, i)) for i, item in enumerate(value)]
        if blocks.registry and blocks.one and not (null and value == "None"):
            return self.block(blocks.registry, value, path)
        hint = ". Did you mean null?" if null and value == "None" else _in_mapping(part, value)
        expected = ("null or " if null else "") + self.expected(key)
        self.problem(path, f"wrong type: got {show(value)}, expected {expected}{hint}")
        return value

    def block(self, registry: Registry, block: Any, path: KeyPath) -> Any:
        """Check ``{type: NAME, argument: value, ...}`` against the signature of the class NAME."""
        if not isinstance(block, dict):
            named = show(block) if not (isinstance(block, str) and block in registry) else f"only the name {block!r}"
            hint = ". It holds the warm-up, too" if registry.role == "schedule" and isinstance(block, list) else ""
            self.problem(path, f"wrong type: got {named}, expected a block such as {_example(registry, block)}{hint}")
        elif "type" not in block:
            self.missing(path, "type", f"the name of {article(registry.role)}: {listed(registry.names())}")
        elif name := self.class_of(registry, block["type"], path):
            arguments = {key: value for key, value in block.items() if key != "type"}
            for supplied in [key for key in arguments if key in registry.given]:
                self.problem(
                    (*path, supplied),
                    f"not for the recipe: distcls supplies {supplied!r} of {article(registry.role)}; remove the key",
                )
                del arguments[supplied]
            keys = keys_of_block(registry, name)
            # If the type was wrong, no argument is missing: merging dropped those of a base with another type.
            given = keys if name == block["type"] else none_required(keys)
            return {"type": name, **self.mapping(given, arguments, path)}
        return block

    def class_of(self, registry: Registry, name: Any, path: KeyPath) -> str | None:
        """The registered class `name`; after a mistake the one that is certainly meant, to check its arguments."""
        names = registry.names()
        if name in names:
            return name
        role = next((one.role for one in ROLES if name in one.names()), "")
        what = f"{article(role)}, not {article(registry.role)}" if role else f"unknown {registry.role}"
        meant, hint = (
            (None, _PLACES.get(role, ""))
            if role
            else class_meant(registry.role, str(name), names, guess=not self.plugin_failed)
        )
        expected = listed(names) or f"a registered {registry.role}, and none is: is a plug-in missing?"
        if self.plugin_failed and not (role or meant):
            expected = "one of this package or of a plug-in that can be imported"
        self.problem((*path, "type"), f"{what}: got {show(name)}, expected {expected}.{hint}".removesuffix("."))
        return meant


def _example(registry: Registry, name: Any = None) -> str:
    """An example of a block for messages, with the class `name` if it is registered."""
    names = registry.names()
    return f"{{type: {next((one for one in (name, registry.example, *names) if one in names), 'NAME')}}}"


def _in_mapping(part: type | None, value: Any) -> str:
    """A hint if the value fits the only required key of the part: ``train: a.beton`` for {path: a.beton}."""
    needed = [(name, key) for name, key in keys_of_part(part).named.items() if key.default is REQUIRED] if part else []
    if len(needed) != 1 or value is None or convert(needed[0][1].annotation, value)[1]:
        return ""
    return f". Did you mean {{{needed[0][0]}: {value if isinstance(value, str) else show(value)}}}?"


def filled(keys: Keys, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A checked mapping as JSON-able values, with defaults for all keys that were not written.

    A default that JSON cannot express (a class, a function) is left out; reading the result gives it again.
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
            result[key] = filled(keys_of_part(part), given)
        elif (registry := nested(annotation).registry) and value is not None:
            many = isinstance(value, list)
            blocks = [_filled_block(registry, one) for one in (value if many else [value])]
            result[key] = blocks if many else blocks[0]
        else:
            try:
                result[key] = plain(annotation, value)
            except pydantic_core.PydanticSerializationError:
                continue
    return result


def _filled_block(registry: Registry, block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {key: value for key, value in block.items() if key != "type"}
    return {"type": block["type"], **filled(keys_of_block(registry, block["type"]), arguments)}


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """``a, b or c``; a long list is shortened."""
    names = list(names)
    if len(names) > _LISTED:
        return f"one of {', '.join(names[: _LISTED - 2])} ... ({len(names)} in all)"
    return either(names)


def article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
