"""Scalars as YAML 1.2 has them, mistakes of writing with their places, and texts that come back as they were."""

import math
import random
import string
from typing import Any

import pytest
import yaml

from distcls.recipe.errors import Where
from distcls.recipe.yaml12 import parse, to_yaml

START = Where("a.yaml", 1, 1)


def value_of(text: str) -> Any:
    problems: list = []
    node = parse(text, START, problems)
    assert not problems
    assert node is not None
    return node.plain()


def complaints(text: str) -> list[str]:
    problems: list = []
    parse(text, START, problems)
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'~'", "~"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("=", "="),
    ],
)
def test_scalars_are_yaml_1_2(text: str, value: object) -> None:
    got = value_of(f"key: {text}")["key"]
    assert got == value
    assert type(got) is type(value)


def test_nan() -> None:
    assert math.isnan(value_of("key: .nan")["key"])


def test_an_alias_is_a_copy() -> None:
    tree = value_of("a: &mean [1, 2]\nb: *mean\n")
    assert tree == {"a": [1, 2], "b": [1, 2]}
    assert tree["a"] is not tree["b"]


def test_places_are_those_of_keys_and_items() -> None:
    node = parse("a:\n  - b: 1\n    c: {d: 2}\n", START, [])
    assert node is not None
    assert {path: (place.line, place.column) for path, place in node.places().items()} == {
        (): (1, 1),
        ("a",): (1, 1),
        ("a", 0): (2, 5),
        ("a", 0, "b"): (2, 5),
        ("a", 0, "c"): (3, 5),
        ("a", 0, "c", "d"): (3, 9),
    }


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n",
            [
                "a.yaml:2:11: b.c: duplicate key: first written in line 2",
                "a.yaml:3:1: a: duplicate key: first written in line 1",
                "a.yaml:4:1: a: duplicate key: first written in line 1",
            ],
        ),
        ("b:\n  <<: {c: 1}\n", ["a.yaml:2:3: b.<<: merge keys are not supported: use _base_ or write the keys out"]),
        ("1: a\n", ["a.yaml:1:1: a key must be a text: got 1; quote it: '1'"]),
        (
            "a: {lr: 0,1}\n",
            [
                "a.yaml:1:11: a: a key must be a text: got 1; the comma before it begins a new key: the decimal sign is a point"
            ],
        ),
        ("b: {true: a}\n", ["a.yaml:1:5: b: a key must be a text: got true; quote it: 'true'"]),
        ("? [a]\n: b\n", ["a.yaml:1:3: a key must be a text: got a sequence"]),
        ("? \n: b\n", ["a.yaml:1:2: a key must be a text: got nothing"]),
        ("a: !!int x\n", ["a.yaml:1:1: a: 'x' is no !!int"]),
        ("a: !!binary x\n", ["a.yaml:1:1: a: the tag !!binary is not allowed: remove it"]),
        ("a: !ours [x]\n", ["a.yaml:1:1: a: the tag !ours is not allowed: remove it"]),
        ("a: &a [*a]\n", ["a.yaml:1:4: a.0: alias inside its own anchor: the value would never end"]),
        (
            "a: *b\n",
            [
                "a.yaml:1:4: not valid YAML: an alias (*) without an anchor (&) before it; quote a text that begins with *"
            ],
        ),
        (
            "freeze: [*.bias]\n",
            [
                "a.yaml:1:11: not valid YAML: an alias (*) without an anchor (&) before it; quote a text that begins with *"
            ],
        ),
        ("a: 1\nb: " + "9" * 5000, ["a.yaml:2:1: b: a number of 5000 digits: expected 4000 at most"]),
        ("a: " + 3000 * "[", ["a.yaml:1:1: not valid YAML: nested too deeply"]),
        ("a: " + 900 * "[" + 900 * "]", ["a.yaml:1:1: not valid YAML: nested too deeply"]),
        ("a:\n\tb: 1\n", ["a.yaml:2:1: not valid YAML: a tab stands where only spaces may: indent with spaces"]),
        ("a: b: c\n", ["a.yaml:1:5: not valid YAML: a second ': ' in one value: quote the value, or begin a new line"]),
        (
            "a: [1, 2\nb: 3\n",
            ["a.yaml:2:2: not valid YAML: a ',' or the closing bracket is missing (opened in line 1)"],
        ),
        ("a: 1\nb\nc: 2\n", ["a.yaml:3:1: not valid YAML: a key without ':' after it"]),
        (
            "a:\n    b: 1\n  c: 2\n",
            ["a.yaml:3:3: not valid YAML: this line's indentation fits none of the lines above"],
        ),
        ('a: "x\n', ["a.yaml:2:1: not valid YAML: the closing quote is missing (opened in line 1)"]),
        ("a: 1\n---\nb: 2\n", ["a.yaml:2:1: not valid YAML: a second document ('---'): a recipe is one document"]),
        ("a: @x\n", ["a.yaml:1:4: not valid YAML: a value cannot begin with this character: quote it"]),
        ('a: "\\d"\n', ["a.yaml:1:6: not valid YAML: an unknown \\ escape in a \"...\" text: use '...'"]),
        ("a: 1\nb: x\x00y\n", ["a.yaml:2:5: not valid YAML: the character '\\x00' is not allowed"]),
    ],
)
def test_mistakes_of_writing(text: str, lines: list[str]) -> None:
    assert complaints(text) == lines


WORDS = [
    *(
        "no",
        "on",
        "y",
        "N",
        "null",
        "~",
        "",
        "true",
        "TRUE",
        "1",
        "-1",
        "010",
        "0o7",
        "0x1",
        "0b1",
        "1_000",
        "1e3",
        "5e-05",
        "1:30",
    ),
    *(
        ".inf",
        "-.INF",
        ".nan",
        "2024-01-01",
        "2001-12-14t21:59:43.10-05:00",
        "=",
        "<<",
        "# no comment",
        "a: b",
        "a #b",
        "- a",
        "?",
    ),
    *(
        "&a",
        "*a",
        "!t",
        "@x",
        "`x",
        "%x",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "a\nb",
        "a\n",
        "\n",
        " a ",
        "\t",
        "é",
        "日本",
        "🙂",
        "\x85",
        "\u2028",
    ),
    *(
        "{a}",
        "[a]",
        "a,b",
        "...",
        "---",
        "--- a",
        "x" * 300,
        "word " * 60,
        "\x07",
        "\ufeff",
        ":",
        "a:",
        ":a",
        "$HOME",
        "~/x",
    ),
]


def random_value(random_source: random.Random, depth: int) -> Any:
    kind = random_source.randrange(8 if depth else 5)
    if kind == 0:
        return random_source.choice([None, True, False])
    if kind == 1:
        return random_source.choice([0, -1, 10**20, random_source.randrange(-(10**6), 10**6)])
    if kind == 2:
        return random_source.choice(
            [5e-05, 1e16, -0.0, 1e-300, math.inf, -math.inf, 1 / 3, random_source.uniform(-1, 1)]
        )
    if kind <= 4:
        letters = "".join(random_source.choices(string.printable, k=random_source.randrange(6)))
        return random_source.choice([random_source.choice(WORDS), letters])
    if kind == 5:
        return [random_value(random_source, depth - 1) for _ in range(random_source.randrange(4))]
    return random_mapping(random_source, depth - 1)


def random_mapping(random_source: random.Random, depth: int) -> dict[str, Any]:
    keys = random_source.sample([word for word in WORDS if word != "<<"], random_source.randrange(5))
    return {key: random_value(random_source, depth) for key in keys}


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # tells 1 from 1.0 and from True, and 0.0 from -0.0


def test_what_is_written_is_read_back_by_both_yamls() -> None:
    for seed in range(300):
        tree = random_mapping(random.Random(seed), depth=3)
        text = to_yaml(tree)
        assert same(value_of(text), tree), text
        assert same(yaml.safe_load(text), tree), text


@pytest.mark.parametrize("word", [word for word in WORDS if word != "<<"])
def test_every_word_is_read_back_by_both_yamls(word: str) -> None:
    text = to_yaml({word: word, "list": [word]})
    assert value_of(text) == yaml.safe_load(text) == {word: word, "list": [word]}


def test_numbers_and_words_are_written_for_both_yamls() -> None:
    assert to_yaml({"a": 5e-05, "b": "no", "c": "1e3", "d": [1, 2.0], "e": [{"f": None}], "g": "a\nb"}) == (
        "a: 5.0e-05\nb: 'no'\nc: '1e3'\nd: [1, 2.0]\ne:\n- f: null\ng: \"a\\nb\"\n"
    )
