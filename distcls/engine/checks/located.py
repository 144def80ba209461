"""Reports arguments that a part refuses at the line of the recipe that holds them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distcls.errors import ArgumentError, UserError
from distcls.recipe.errors import KeyPath, Mistake
from distcls.recipe.source import Source


@contextmanager
def located(source: Source) -> Iterator[None]:
    """Turns an ArgumentError in the block into a RecipeError at the class or key that the error names."""
    try:
        yield
    except ArgumentError as error:
        if (found := mistake_of(error, source.tree)) is None:
            raise
        raise source.error(found) from error


@contextmanager
def located_at(source: Source, path: KeyPath) -> Iterator[None]:
    """Turns a UserError in the block into a RecipeError at `path`."""
    try:
        yield
    except UserError as error:
        raise source.error((path, str(error))) from error


def mistake_of(error: ArgumentError, tree: Mapping[str, Any]) -> Mistake | None:
    """The error's place in the recipe, for a class used twice the first, and its text; None if it has no place."""
    first, *argument = error.place.split(".")
    if first in tree:
        return (first, *argument), error.reason
    for path, block in blocks(tree):
        if block["type"] == first:
            return (*path, *argument), error.reason if argument else str(error)
    return None


def blocks(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Every ``{type: ...}`` mapping of a recipe or a part of it, outer ones first."""
    if isinstance(tree, Mapping):
        if "type" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from blocks(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from blocks(value, (*path, index))
