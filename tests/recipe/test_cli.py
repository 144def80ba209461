"""`distcls recipe ...` as a user types it, on the classes of parts."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distcls.cli.recipe import app
from distcls.engine.checks import plugins
from distcls.recipe.errors import RecipeError
from tests.recipe import parts


@pytest.fixture(autouse=True)
def _recipe(stand_ins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "import_parts", lambda source=None: [])
    Path("a.yaml").write_text(parts.WHOLE)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_check_says_ok() -> None:
    assert run("check", "a.yaml", "optimizer.lr=1e-3", "train.seed=1") == "a.yaml: ok\n"


def test_check_reports_every_mistake() -> None:
    with pytest.raises(
        RecipeError, match=r"2 mistakes in a\.yaml\ncommand line: optimizer.lr: .*\ncommand line: train.seed: .*"
    ):
        run("check", "a.yaml", "optimizer.lr=x", "train.seed=x")


def test_show_prints_a_recipe() -> None:
    text = run("show", "a.yaml", "train.seed=7")
    assert parts.checked(text=text, name="again.yaml").train.seed == 7


def test_show_says_where_each_key_comes_from() -> None:
    Path("b.yaml").write_text("_base_: a.yaml\ntracking:\n  tags: [x, 'no']\n  notes: \"two\\nlines\"\n")
    lines = run("show", "b.yaml", "train.seed=7", "--origin").splitlines()
    origins = dict(tuple(part.strip() for part in line.rsplit("  # ", 1)) for line in lines)
    assert len(lines) == len(run("show", "b.yaml").splitlines())
    assert {
        key: origins[key] for key in ("depth: 50", "tags: [x, 'no']", 'notes: "two\\nlines"', "seed: 7", "keep: 2")
    } == {
        "depth: 50": "a.yaml:2",
        "tags: [x, 'no']": "b.yaml:3",
        'notes: "two\\nlines"': "b.yaml:4",
        "seed: 7": "command line",
        "keep: 2": "default",
    }
    assert origins["- type: RandomHorizontalFlip"] == "a.yaml:14"


def test_what_show_prints_with_origins_is_still_the_recipe() -> None:
    with_origins = run("show", "a.yaml", "--origin")
    assert to_dict(with_origins) == to_dict(run("show", "a.yaml"))


def to_dict(text: str) -> dict:
    return parts.checked(text=text, name="again.yaml").resolved()


def test_schema_is_written_where_asked() -> None:
    assert run("schema", "-o", "recipe.schema.json") == ""
    written = json.loads(Path("recipe.schema.json").read_text())
    assert written == json.loads(run("schema"))
    assert written["title"] == "distcls recipe"
