"""Where a recipe does not fit the ranks that it is started on: known before a process group or a GPU is touched."""

from collections.abc import Iterator
from contextlib import contextmanager

from distcls.errors import UserError
from distcls.recipe.errors import KeyPath, Problem, RecipeError
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source


def check_ranks(recipe: Recipe, source: Source, ranks: int) -> None:
    """The global batch must divide into equal micro-batches, with mixing into even ones.

    Raises:
        RecipeError: it does not on this many ranks.
    """
    batch, accumulation = recipe.train.global_batch_size, recipe.train.accumulation_steps
    if batch % (ranks * accumulation):
        path: KeyPath = ("train", "global_batch_size")
        text = (
            f"{ranks} ranks x {accumulation} accumulation steps do not divide it: got {batch}, "
            f"expected a multiple of {ranks * accumulation}"
        )
        raise RecipeError(source.recipe, [Problem(source.at(path), path, text)])
    if recipe.data.mix and (batch // (ranks * accumulation)) % 2:
        path = ("data", "mix")
        text = (
            f"images are mixed in pairs: got micro-batches of {batch // (ranks * accumulation)} images "
            f"({ranks} ranks x {accumulation} accumulation steps), expected an even number"
        )
        raise RecipeError(source.recipe, [Problem(source.at(path), path, text)])


@contextmanager
def reported_at(source: Source, path: KeyPath) -> Iterator[None]:
    """A UserError within the block is a mistake of the recipe's at `path`."""
    try:
        yield
    except UserError as error:
        raise RecipeError(source.recipe, [Problem(source.at(path), path, str(error))]) from error
