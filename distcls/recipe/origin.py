"""Adds comments to a resolved recipe that say where each key comes from."""

from distcls.recipe.errors import COMMAND_LINE, Where
from distcls.recipe.source import Source
from distcls.recipe.yaml12 import parse


def with_origin(text: str, source: Source) -> str:
    """`text`, written by `to_yaml`, with ``# file:line`` at the end of each line, or ``# default``."""
    root = parse(text, Where("", 1, 1), [])
    assert root is not None
    origins: dict[int, str] = {}
    for path, place in root.places().items():
        if not path:
            continue
        where = source.where.get(path)
        origin = "default" if where is None else str(where) if where == COMMAND_LINE else f"{where.file}:{where.line}"
        origins[place.line] = origin  # the last one in the line: for `- type: X` that of the key, not of the item
    lines = text.splitlines()
    width = min(max(map(len, lines)), 60)
    return "".join(f"{line:<{width}}  # {origins[number]}\n" for number, line in enumerate(lines, 1))
