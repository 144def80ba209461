"""docs/migrating.md: what stands on the right of its tables is a recipe's key with a value of its kind, or a command."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.engine.checks.plugins import import_parts
from distcls.recipe.schema import check
from distcls.recipe.source import read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/migrating.md").read_text()
CELLS = re.findall(r"^\|.* \| (.*) \|$", PAGE, re.MULTILINE)
SPANS = [span for cell in CELLS for span in re.findall(r"`([^`]+)`", cell)]
KEYS = [span for span in SPANS if re.match(r"[a-z_]+: ", span)]
COMMANDS = [span for span in SPANS if span.startswith(("distcls ", "accelerate "))]
IN_WORDS = {"val_ema/*", "@BACKBONES.register"}


def test_every_row_says_something() -> None:
    assert len(CELLS) > 80
    assert set(SPANS) == {*KEYS, *COMMANDS, *IN_WORDS}


@pytest.mark.parametrize("text", dict.fromkeys(KEYS))
def test_a_key(text: str) -> None:
    import_parts()
    Path("mine.yaml").write_text(f"_base_: {ROOT}/recipes/imagenet_r50.yaml\n{text}\n")
    check(read(Path("mine.yaml"), []))


@pytest.mark.parametrize("text", dict.fromkeys(COMMANDS))
def test_a_command(text: str) -> None:
    program, *words = text.split()
    if program == "accelerate":
        recipe = words[2]
        assert words[:2] == ["launch", "launch/train.py"]
        assert recipe == "RECIPE" or (ROOT / recipe).exists()
        return
    help_ = CliRunner().invoke(app, [*words[:2], "--help"], env={"COLUMNS": "200"})
    assert help_.exit_code == 0
    assert not [word for word in words if word.startswith("--") and word not in help_.output]
