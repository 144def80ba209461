"""The mistakes of a recipe, each with its place, and the one report of all of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from distcls.errors import UserError

KeyPath = tuple[str | int, ...]
Mistake = tuple[KeyPath, str]  # a key and what is wrong with it, before its place in the files is looked up


@dataclass(frozen=True, order=True)
class Where:
    """Where a key or list item is written. Lines and columns count from 1; without a line it is the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


COMMAND_LINE = Where("command line")


@dataclass(frozen=True)
class Problem:
    """One mistake; prints as ``file:line:column: key.path: what is wrong: got X, expected Y. Did you mean 'z'?``."""

    where: Where
    path: KeyPath
    text: str

    def __str__(self) -> str:
        return ": ".join([str(self.where), *([dotted(self.path)] if self.path else []), self.text])


class RecipeError(UserError):
    """All mistakes of a recipe: one heading, then one line each, by file and line, the command line's last.

    Attributes:
        problems: the mistakes in the order of the report.
    """

    def __init__(self, recipe: str, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.where == COMMAND_LINE, problem.where))
        count = len(self.problems)
        heading = f"{count} mistake{'s' if count > 1 else ''} in {recipe}"
        super().__init__("\n".join([heading, *map(str, self.problems)]))


def dotted(path: KeyPath) -> str:
    """``("data", "augment", 0, "p")`` -> ``data.augment.0.p``, as on the command line."""
    return ".".join(map(str, path))
