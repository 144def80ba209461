"""A run's recorded recipe, read by a later version of distcls."""

from collections.abc import Mapping
from typing import Any

from distcls.recipe.errors import RecipeError, Where
from distcls.recipe.schema import check
from distcls.recipe.source import Source


def refilled(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """`resolved` with today's default for every key that its version did not have: what it would mean now.

    A recipe that this version refuses (it has a key that is gone) comes back as it is.
    """
    source = Source(
        name=resolved.get("name", ""), recipe="run.json", tree=dict(resolved), where={(): Where("run.json")}
    )
    try:
        return check(source).resolved()
    except RecipeError:
        return dict(resolved)
