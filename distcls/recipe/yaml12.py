"""YAML 1.2 core text <-> plain values, with the place of every key.

PyYAML parses; this module decides which words are numbers, because PyYAML follows YAML 1.1, where `5e-5` is a text,
`no` is false, `010` is eight and `1:30` is ninety.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from distcls.recipe.errors import KeyPath, Problem, Where

_TAG = "tag:yaml.org,2002:"
_DIGITS = 4000  # of an integer; Python refuses to read more
_CORE_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Resolves plain words by the rules of YAML 1.2 alone."""


class _Dumper(yaml.SafeDumper):
    """Writes YAML that 1.1 and 1.2 read alike: a text that would be something else in either is quoted."""


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _CORE_SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
_Dumper.add_implicit_resolver(_TAG + "bool", re.compile("^[yYnN]$"), list("yYnN"))  # PyYAML lacks these of YAML 1.1


@dataclass
class Node:
    """A value and where its key (or list item) was written. Collections contain nodes."""

    where: Where
    value: "Mapping[str, Node] | list[Node] | str | int | float | bool | None"

    def plain(self) -> Any:
        """The value without places: dicts, lists and scalars."""
        if isinstance(self.value, Mapping):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def places(self, path: KeyPath = ()) -> dict[KeyPath, Where]:
        """Key path -> place, for this node and all below it."""
        places = {path: self.where}
        children: Any = self.value.items() if isinstance(self.value, Mapping) else ()
        for key, child in enumerate(self.value) if isinstance(self.value, list) else children:
            places |= child.places((*path, key))
        return places


def parse(text: str, start: Where, problems: list[Problem], path: KeyPath = ()) -> Node | None:
    """One YAML document -> nodes; mistakes are appended to `problems`.

    Args:
        text: the document.
        start: the place of its first character; without a line (the command line), the place of everything.
        problems: receives every duplicate key, key that is no text, `<<`, tag outside the core schema and syntax
            error.
        path: key path of the document's root, for the problems.

    Returns:
        The root, or None if the text is not YAML. An alias becomes a copy of its anchor's value.
    """
    try:
        root = _Loader(text).get_single_node()
        read = _Reader(start, problems).node(root, path, start, ()) if root else None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        where = Where(start.file, len(before), len(before[-1]) + 1) if start.line else start
        problems.append(Problem(where, path, f"not valid YAML: the character {chr(error.character)!r} is not allowed"))
        return None
    except yaml.MarkedYAMLError as error:
        where = _place(start, error.problem_mark or error.context_mark)
        problems.append(Problem(where, path, f"not valid YAML: {_sentence(error, start, text)}"))
        return None
    except RecursionError:
        problems.append(Problem(start, path, "not valid YAML: nested too deeply"))
        return None
    return read or Node(start, None)


class _Reader:
    def __init__(self, start: Where, problems: list[Problem]) -> None:
        self.start = start
        self.problems = problems

    def node(self, node: yaml.Node, path: KeyPath, where: Where, above: tuple[yaml.Node, ...]) -> Node:
        if any(node is one for one in above):
            self.problem(where, path, "alias inside its own anchor: the value would never end")
            return Node(where, None)
        above = (*above, node)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Node(where, self.mapping(node, path, above))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = enumerate(node.value)
            return Node(
                where, [self.node(item, (*path, i), _place(self.start, item.start_mark), above) for i, item in items]
            )
        return Node(where, self.scalar(node, path, where))

    def mapping(self, node: yaml.MappingNode, path: KeyPath, above: tuple[yaml.Node, ...]) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key, here = key_node.value, _place(self.start, key_node.start_mark)
            if key_node.tag != _TAG + "str":
                what = repr(key) if isinstance(key, str) else f"a {key_node.id}"
                quoted = f"; quote it: '{key}'" if isinstance(key, str) and key else ""
                if isinstance(key, str) and key and not value_node.value:  # {momentum: 0,9} is momentum: 0 and a key 9
                    quoted = "; the comma before it begins a new key: the decimal sign is a point"
                self.problem(here, path, f"a key must be a text: got {what.strip(chr(39)) or 'nothing'}{quoted}")
                continue
            if key == "<<":
                self.problem(here, (*path, key), "merge keys are not supported: use _base_ or write the keys out")
                continue
            child = self.node(value_node, (*path, key), here, above)
            if key in children:
                first = children[key].where
                self.problem(
                    here,
                    (*path, key),
                    f"duplicate key: first written in line {first.line}" if first.line else "duplicate key",
                )
            else:
                children[key] = child
        return children

    def scalar(self, node: yaml.Node, path: KeyPath, where: Where) -> str | int | float | bool | None:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        pattern = {name: pattern for name, pattern, _ in _CORE_SCALARS}.get(tag, "(?s:.*)" if tag == "str" else None)
        if pattern is None or not isinstance(text, str) or not re.fullmatch(pattern, text):
            known = pattern is not None and isinstance(text, str)
            self.problem(
                where,
                path,
                f"{text!r} is no !!{tag}" if known else f"the tag {_written(node.tag)} is not allowed: remove it",
            )
            return None
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag == "int" and len(text) > _DIGITS:
            self.problem(where, path, f"a number of {len(text)} digits: expected {_DIGITS} at most")
            return None
        if tag == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if tag == "float":
            return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
        return text

    def problem(self, where: Where, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(where, path, text))


def _place(start: Where, mark: yaml.Mark | None) -> Where:
    return Where(start.file, mark.line + 1, mark.column + 1) if start.line and mark else start


def _written(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag


def _sentence(error: yaml.MarkedYAMLError, start: Where, text: str) -> str:
    """Say what the author probably did, where PyYAML speaks of its grammar."""
    problem = error.problem or ""
    opened = f" (opened in line {error.context_mark.line + 1})" if error.context_mark and start.line else ""
    mark = error.problem_mark
    before = text.split("\n")[mark.line][: mark.column] if mark else ""
    second = "a second ': ' in one value: quote the value, or begin a new line"
    if before.startswith(" ") and ":" not in before:
        second = "this line is indented deeper than the one above, which has its value already"
    for sign, sentence in (
        (r"found character '\\t'", "a tab stands where only spaces may: indent with spaces"),
        (r"mapping values are not allowed", second),
        (r"could not find expected ':'", "a key without ':' after it"),
        (r"expected <block end>, but found", "this line's indentation fits none of the lines above"),
        (r"expected ',' or '[]}]'", f"a ',' or the closing bracket is missing{opened}"),
        (r"but found '<stream end>'", "the text ends before a closing bracket"),
        (r"expected the node content", "a value is missing here"),
        (r"unexpected end of stream", f"the closing quote is missing{opened}"),
        (r"found another document", "a second document ('---'): a recipe is one document"),
        (
            r"found undefined alias|while scanning an alias",
            "an alias (*) without an anchor (&) before it; quote a text that begins with *",
        ),
        (r"found duplicate anchor", "an anchor (&) of this name stands above"),
        (r"found character '[%@`]'", "a value cannot begin with this character: quote it"),
        (r"found unknown escape character", "an unknown \\ escape in a \"...\" text: use '...'"),
    ):
        if re.search(sign, f"{problem} {error.context or ''}"):
            return sentence
    return ", ".join(filter(None, [error.context, problem]))


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A JSON-able mapping -> YAML that 1.1 and 1.2 read as the same values, with a line for every key."""
    return yaml.dump(
        dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"), default_flow_style=False
    )


def _represent_list(dumper: _Dumper, items: list) -> yaml.Node:
    flow = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence(_TAG + "seq", items, flow_style=flow)


def _represent_str(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(_TAG + "str", text, style=None if text.splitlines() in ([], [text]) else '"')


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_str)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
