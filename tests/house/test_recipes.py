"""A recipe's header says how it was run and what came out, or that nobody has measured it."""

import json
import re
from pathlib import Path

import pytest
import yaml

from distcls.engine.checks.plugins import import_parts
from distcls.engine.records.measured_runs import MeasuredRuns
from distcls.recipe.schema import check
from distcls.recipe.source import read

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))  # recipes/_base_ holds parts, which have no result of their own


def header(text: str) -> str:
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:end])


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_header_has_command_and_result(recipe: Path) -> None:
    head = header(recipe.read_text())
    assert re.search(rf"^# Run: .*launch/train\.py recipes/{recipe.name}\b", head, re.MULTILINE), (
        f"no `# Run:` in the header:\n{head}"
    )
    assert re.search(r"^# Result: +\S", head, re.MULTILINE), f"no `# Result:` in the header:\n{head}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_of_others_names_its_source(recipe: Path) -> None:
    if recipe.stem.startswith("imagenet"):
        assert re.search(r"^# Source: +\S", header(recipe.read_text()), re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_header_says_what_another_batch_or_number_of_gpus_needs(recipe: Path) -> None:
    import_parts()
    batch = check(read(recipe, [])).train.global_batch_size
    said = re.search(
        r"^# Batch: +(\d+) images.* Another batch: optimizer\.lr times", header(recipe.read_text()), re.MULTILINE
    )
    assert said, "no `# Batch:` in the header"
    assert int(said[1]) == batch


def test_result_further_down_does_not_count() -> None:
    assert "Result" not in header("# A recipe.\nmodel: {}\n# Result: 99%\n")


def test_readme_explains_the_quick_recipe_as_it_is() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    recipe = (ROOT / "recipes/fashion_mnist_quick.yaml").read_text()
    assert yaml.safe_load(block) == yaml.safe_load(recipe)


@pytest.mark.parametrize("results", sorted((ROOT / "recipes/results").glob("*.json")), ids=lambda results: results.stem)
def test_results_are_of_the_recipe_as_it_is(results: Path) -> None:
    import_parts()
    measured = MeasuredRuns.read(results)
    recipe = check(read(ROOT / f"recipes/{measured.name}.yaml", [])).resolved()
    measured.refuse_another_recipe(results, json.loads(json.dumps(recipe)))
    assert measured.bands()
