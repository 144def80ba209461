"""Opens the data sets of a recipe, and checks that the recipe fits them."""

from dataclasses import dataclass
from typing import Any

from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.engine.checks.fit import misfits
from distcls.recipe.errors import Mistake
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source


@dataclass
class Datasets:
    """Both splits, opened and checked."""

    train: BetonDataset
    val: BetonDataset

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """What must be stored beside weights to use them: recipe, class names, mean and std."""
        return {
            "recipe": recipe.resolved(),
            "class_names": self.train.class_names,
            "mean": list(self.train.mean),
            "std": list(self.train.std),
        }


def open_datasets(recipe: Recipe, source: Source) -> Datasets:
    """Map the files into memory, check them, and check that the recipe fits them; uses no GPU.

    Raises:
        RecipeError: a file is missing or damaged, or the recipe does not fit what is in it.
    """
    mistakes: list[Mistake] = []
    opened = []
    for split, paths in (("train", recipe.data.train.path), ("val", recipe.data.val.path)):
        try:
            opened.append(BetonDataset(paths))
        except DataError as error:
            mistakes.append((("data", split, "path"), str(error)))
    if mistakes:
        raise source.error(*mistakes)
    train, val = opened
    if mistakes := misfits(recipe, train, val):
        raise source.error(*mistakes)
    return Datasets(train, val)
