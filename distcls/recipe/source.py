"""Recipe files and the command line -> one plain tree, and the place where each key was written.

So a mistake that is found much later (a wrong type, an unknown argument) can still point at the user's line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distcls.recipe.errors import COMMAND_LINE, KeyPath, Mistake, Problem, RecipeError, Where, dotted
from distcls.recipe.yaml12 import Node, parse


@dataclass(frozen=True)
class Source:
    """A recipe as it was written: inheritance resolved, overrides applied, nothing checked.

    Attributes:
        name: of the recipe, the stem of its file.
        recipe: the recipe's file, as shown in messages.
        tree: dicts, lists and scalars.
        where: key path -> where that key (or list item) was written; ``()`` is the top of the recipe.
        files: absolute paths of the recipe and its bases, in the order of reading.
        plugins: absolute paths of Python files, and dotted module names; whether they exist is not checked here.
        problems: the mistakes found so far.
        complete: False if a base could not be read, so that keys may only seem to be missing.
    """

    name: str
    recipe: str
    tree: dict[str, Any]
    where: dict[KeyPath, Where]
    files: list[Path] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True

    def at(self, path: KeyPath) -> Where:
        """Where `path` was written, or the nearest mapping above it."""
        while path not in self.where:
            path = path[:-1]
        return self.where[path]

    def problem(self, path: KeyPath, text: str) -> Problem:
        """A mistake at `path`, with its place."""
        return Problem(self.at(path), path, text)

    def error(self, *mistakes: Mistake) -> RecipeError:
        """The error to raise for mistakes that are found after the check, in the data or on the machine."""
        return RecipeError(self.recipe, [self.problem(path, text) for path, text in mistakes])


def read(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read the recipe at `path` and its bases, then apply `overrides` (``KEY=VALUE``, VALUE in YAML).

    Raises:
        RecipeError: the recipe itself is no readable YAML mapping. Other mistakes are kept in ``problems``; `check`
            reports them together with its own.
    """
    reading = _Reading()
    root = reading.file(Path(path), named_at=None)
    top = root or Node(Where(_shown(path)), {})
    # Apply a new type first, whatever the order on the command line: it drops arguments set before.
    for item in sorted(overrides, key=lambda item: not item.partition("=")[0].endswith(".type")):
        _override(top, item, reading.problems)
    if root is None:
        raise RecipeError(_shown(path), reading.problems)
    tree = top.plain()
    plugins = tree.get("plugins")
    return Source(
        name=Path(path).stem,
        recipe=_shown(path),
        tree=tree,
        where=top.places(),
        files=list(dict.fromkeys(reading.files)),
        plugins=[str(one) for one in plugins] if isinstance(plugins, list) else [],
        problems=reading.problems,
        complete=reading.complete,
    )


class _Reading:
    """The files read so far, and those still being read, to detect a circle."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.problems: list[Problem] = []
        self.open: list[Path] = []
        self.complete = True

    def file(self, path: Path, named_at: Where | None) -> Node | None:
        """The nodes of one recipe merged over its bases; None if it is no readable mapping."""
        place, key = (named_at, ("_base_",)) if named_at else (Where(_shown(path)), ())
        absolute = path.resolve()
        if absolute in self.open:
            circle = " -> ".join(one.name for one in (*self.open[self.open.index(absolute) :], absolute))
            return self.fail(place, key, f"the recipes inherit in a circle: {circle}")
        try:
            content = absolute.read_bytes()
        except FileNotFoundError:
            return self.fail(place, key, f"no such file: {_shown(path)}" if named_at else "no such file")
        except IsADirectoryError:
            return self.fail(place, key, f"{_shown(path) if named_at else 'this'} is a folder, expected a recipe file")
        except OSError as error:
            return self.fail(place, key, f"cannot read {_shown(path)}: {error.strerror}")
        if path.suffix == ".py":
            text = f"{_shown(path)} is Python, expected a recipe in YAML" if named_at else "Python, expected YAML"
            return self.fail(place, key, f"{text}: docs/migrating.md says how each key of a config is written there")
        self.files.append(absolute)
        start = Where(_shown(path), 1, 1)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = content[: error.start].split(b"\n")
            spot = Where(start.file, len(before), len(before[-1].decode("utf-8-sig")) + 1)
            return self.fail(spot, (), f"not UTF-8 text: got the byte 0x{content[error.start]:02x}")
        root = parse(text, start, self.problems)
        if root is None:
            self.complete = False
            return None
        if not isinstance(root.value, dict):
            got = (
                "a list"
                if isinstance(root.value, list)
                else "an empty file"
                if root.value is None
                else "a single value"
            )
            return self.fail(start, (), f"not a recipe: got {got}, expected keys such as model: and data:")
        return self.with_bases(absolute, root)

    def fail(self, where: Where, path: KeyPath, text: str) -> Node | None:
        """Record why a file could not be used; return None in place of its nodes."""
        self.problems.append(Problem(where, path, text))
        self.complete = False
        return None

    def with_bases(self, file: Path, top: Node) -> Node:
        assert isinstance(top.value, dict)
        named = top.value.pop("_base_", None)
        _resolve_plugins(top.value.get("plugins"), file.parent)
        self.open.append(file)
        merged = Node(top.where, {})
        for entry in named.value if named and isinstance(named.value, list) else [named] if named else []:
            if not isinstance(entry.value, str):
                self.fail(
                    entry.where, ("_base_",), f"wrong type: got {entry.plain()!r}, expected a path or a list of paths"
                )
            elif base := self.file(file.parent / entry.value, entry.where):
                merged = merge(merged, base)
        self.open.pop()
        return merge(merged, top)


def merge(base: Node, over: Node) -> Node:
    """Merge `over` into `base`: mappings key by key; lists and scalars are replaced.

    A mapping with another `type` replaces its base completely, because the arguments of the old type do not apply.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _changes_type(base.value, over.value):
        return over
    merged = dict(base.value)
    for key, value in over.value.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return Node(over.where, merged)


def _changes_type(base: Mapping[str, Node], over: Mapping[str, Node]) -> bool:
    return "type" in base and "type" in over and base["type"].value != over["type"].value


def _override(top: Node, item: str, problems: list[Problem]) -> None:
    """Apply one ``model.backbone.depth=101`` to the tree, or append its mistake to `problems`."""

    def refuse(text: str, path: KeyPath = ()) -> None:
        problems.append(Problem(COMMAND_LINE, path, text))

    key, equals, text = item.partition("=")
    if key.startswith("--"):
        refuse(f"got {item!r}, expected KEY=VALUE without dashes, for example optimizer.lr=0.5")
        key = key.lstrip("-")
        if not equals:
            return None
    keys = key.split(".")
    if not equals or not all(keys):
        return refuse(f"not an override: got {item!r}, expected KEY=VALUE, for example optimizer.lr=0.5")
    if keys[0] == "_base_":
        return refuse("only a file can name its bases", ("_base_",))
    value = parse(text, COMMAND_LINE, problems, tuple(keys))
    if value is None:
        return None
    if keys[0] == "plugins":
        _resolve_plugins(value if len(keys) == 1 else Node(COMMAND_LINE, [value]), Path.cwd())

    parent = top
    for depth, key in enumerate(keys):
        above = tuple(keys[:depth])
        last = depth == len(keys) - 1
        if isinstance(parent.value, dict):
            children: Any = parent.value
            step: Any = key
            children.setdefault(key, Node(COMMAND_LINE, None if last else {}))
        elif isinstance(parent.value, list):
            if not (key.isdecimal() and int(key) < len(parent.value)):
                have = f"0 to {len(parent.value) - 1}" if parent.value else "none, the list is empty"
                return refuse(f"no such item: got {key!r}, expected an index of {dotted(above)}: {have}", tuple(keys))
            children, step = parent.value, int(key)
        else:
            return refuse(f"{dotted(above)} is {parent.value!r}, not a mapping: nothing can be set in it", tuple(keys))
        if not last:
            parent = children[step]
            if parent.value is None:  # `neck: null` and then model.neck.type=... on the command line
                parent.value, parent.where = {}, COMMAND_LINE
        elif step == "type" and _changes_type(children, {"type": value}):
            parent.value, parent.where = {"type": value}, COMMAND_LINE
        else:
            children[step] = merge(children[step], value)
    return None


def _resolve_plugins(plugins: Node | None, folder: Path) -> None:
    """Make paths absolute, relative to the folder of the file that names them; leave dotted module names."""
    for entry in plugins.value if plugins and isinstance(plugins.value, list) else []:
        if isinstance(entry.value, str) and (entry.value.endswith(".py") or "/" in entry.value):
            entry.value = str((folder / entry.value).resolve())


def _shown(path: Path) -> str:
    """The path relative to the working directory if it is below it: short, and editors can open it."""
    absolute = Path(path).resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
