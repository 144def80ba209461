"""Where each key of a resolved recipe comes from, as comments behind its lines."""

from distcls.recipe.errors import COMMAND_LINE, Where
from distcls.recipe.source import Source
from distcls.recipe.yaml12 import parse


def with_origin(text: str, source: Source) -> str:
    """`text`, which `to_yaml` wrote, with ``# file:line`` behind each line, or ``# default`` where nobody wrote it."""
    root = parse(text, Where("", 1, 1), [])
    assert root is not None
    origins: dict[int, str] = {}
    for path, place in root.places().items():
        if not path:
            continue
        where = source.where.get(path)
        origin = "default" if where is None else str(where) if where == COMMAND_LINE else f"{where.file}:{where.line}"
        origins[place.line] = origin  # of `- type: X` the key, not the item; of `[1, 5]` the items, one place
    lines = text.splitlines()
    width = min(max(map(len, lines)), 60)
    return "".join(f"{line:<{width}}  # {origins[number]}\n" for number, line in enumerate(lines, 1))
