"""Reads the recorded recipe of a run with a later version of distcls."""

from collections.abc import Mapping
from typing import Any

from distcls.recipe.errors import RecipeError, Where
from distcls.recipe.schema import check
from distcls.recipe.source import Source


def refilled(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """`resolved` with today's defaults for keys that its version did not have yet.

    A recipe that this version refuses, for example because a key was removed, is returned unchanged.
    """
    source = Source(
        name=resolved.get("name", ""), recipe="run.json", tree=dict(resolved), where={(): Where("run.json")}
    )
    try:
        return check(source).resolved()
    except RecipeError:
        return dict(resolved)
