"""One idea a file: near 120 lines, none above 300; and names that say what is in them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(ROOT.glob("distcls/**/*.py"))
LONGEST = 300


def test_no_file_is_longer_than_a_reader_holds_in_mind() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert lengths
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert not too_long, f"above {LONGEST} lines: {too_long}"


def test_no_file_is_a_drawer_of_odds_and_ends() -> None:
    odds = [
        str(file.relative_to(ROOT))
        for file in FILES
        if {"utils", "util", "misc", "helpers", "helper", "common_utils"} & set(file.with_suffix("").parts)
    ]
    assert not odds


def test_every_module_says_what_it_is() -> None:
    trees = {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in FILES}
    mute = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert not mute, f"no docstring: {mute}"
