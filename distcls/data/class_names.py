"""Names of classes: read from the file of whoever has them, and told in messages."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distcls.data.errors import DataError
from distcls.data.text_file import lines_of, text_of


def read_class_names(path: Path) -> list[str]:
    """One name a line, or a JSON list of names.

    Raises:
        DataError: the file cannot be read, or a name is there twice.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a regular file, expected a class name a line, or a JSON list")
    try:
        names = (
            json.loads(text_of(path))
            if path.suffix == ".json"
            else [line.strip() for line in lines_of(path) if line.strip()]
        )
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a class name a line, or a JSON list") from error
    if not names or not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{path}: expected a class name a line, or a JSON list of names")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: class {name!r} is there {times} times: give the others other names, say '{name} 2'")
    return names


def first_few(names: Sequence[str]) -> str:
    """Four of them, and how many there are if there are more."""
    return ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")
