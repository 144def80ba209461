"""Refuses ``~`` and ``$NAME`` in paths: only a shell expands them, and a recipe would create a folder named `~`."""

import re
from collections.abc import Mapping
from typing import Any

from distcls.recipe.checker import Checker
from distcls.recipe.errors import KeyPath
from distcls.recipe.values import show

PATHS: tuple[KeyPath, ...] = (
    ("output_dir",),
    ("data", "train", "path"),
    ("data", "val", "path"),
    ("model", "init", "checkpoint"),
)
_SHELL = re.compile(r"^~|\$[A-Za-z_{]")


def check_paths(checker: Checker, tree: Mapping[str, Any]) -> None:
    """Report to `checker` every path that begins with ``~`` or contains a ``$NAME``."""
    for path in PATHS:
        value: Any = tree
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and _SHELL.search(one):
                checker.problem(path, f"~ and $ are not expanded here: got {show(one)}, expected the path written out")
