"""Text that a person or another program wrote: UTF-8, with or without a mark, its lines ended as on any system."""

import io
from pathlib import Path

from distcls.data.errors import DataError


def text_of(path: Path) -> str:
    """A list's text, without the mark that some programs put before it.

    Raises:
        DataError: it is no UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 text: got byte {error.object[error.start]:#04x} at {error.start}. Save it as UTF-8, "
            f"e.g. `iconv -f latin1 -t utf-8 {path.name}`"
        ) from error


def lines_of(path: Path) -> list[str]:
    """Ended as on any system; not where Unicode ends a line, for file names may hold that."""
    return io.StringIO(text_of(path), newline=None).read().split("\n")
