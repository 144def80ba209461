"""What a part refuses in its own arguments, reported at the line of the recipe that holds them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distcls.errors import UserError
from distcls.recipe.errors import KeyPath
from distcls.recipe.source import Source


@contextmanager
def located(source: Source) -> Iterator[None]:
    """A UserError within the block that begins with a class or a key of the recipe is a mistake at its place.

    Parts know their class and their arguments, not where a recipe names them: ``LinearClsHead.topk: got ...``,
    ``RandAugment: p: got ...``, ``LinearClsHead takes ...``, ``schedule: the warm-up ...``.
    """
    try:
        yield
    except UserError as error:
        if type(error) is not UserError or (found := place(str(error), source.tree)) is None:
            raise
        raise source.error(found) from error


@contextmanager
def located_at(source: Source, path: KeyPath) -> Iterator[None]:
    """A UserError within the block is a mistake of the recipe's at `path`."""
    try:
        yield
    except UserError as error:
        raise source.error((path, str(error))) from error


def place(text: str, tree: Mapping[str, Any]) -> tuple[KeyPath, str] | None:
    """The path that a message is about and what it says beside it; None if it names nothing of the recipe."""
    dotted, _, rest = text.partition(": ")
    first, *names = dotted.split(".")
    if not all(name.isidentifier() for name in (first, *names)):
        dotted, rest = "", text
        first, names = text.partition(" ")[0].partition(".")[0], []
    if first in tree:
        return (first, *names), rest
    for path, block in blocks(tree):
        if block["type"] == first:
            argument = re.match(r"(\w+): ", rest) if not names else None
            if argument:
                return (*path, argument[1]), rest[argument.end() :]
            return (*path, *names), rest if names else text
    return None


def blocks(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Every ``{type: ...}`` of a recipe or a part of it, outer ones first."""
    if isinstance(tree, Mapping):
        if "type" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from blocks(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from blocks(value, (*path, index))
