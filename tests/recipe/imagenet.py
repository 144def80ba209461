"""The ImageNet recipes, for the tests that hold them against their sources."""

from functools import cache
from pathlib import Path

from distcls.engine.checks.plugins import import_parts
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import read

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = {path.stem for path in RECIPES.glob("imagenet_*.yaml")}
IMAGES = 1_281_167


@cache
def recipe(name: str) -> Recipe:
    import_parts()
    return check(read(RECIPES / f"{name}.yaml", []))


def steps_per_epoch(name: str) -> int:
    return IMAGES // recipe(name).train.global_batch_size
