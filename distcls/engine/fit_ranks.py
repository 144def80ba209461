"""Where a recipe does not fit the ranks that it is started on: known before a process group or a GPU is touched."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchvision.io import decode_jpeg, encode_jpeg

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


def check_device(recipe: Recipe, source: Source, device: torch.device) -> None:
    """A share of the images decoded by the GPU needs one that can.

    Raises:
        RecipeError: the run trains on a CPU, or torchvision has no nvJPEG.
    """
    share = recipe.data.gpu_decode_share
    if not share:
        return
    path: KeyPath = ("data", "gpu_decode_share")
    if device.type != "cuda":
        text = f"there is no GPU to decode with: got {share}, expected 0 for a run on a CPU"
        raise RecipeError(source.recipe, [Problem(source.at(path), path, text)])
    try:
        decode_jpeg(encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), device=device)
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        text = f"torchvision cannot decode on this GPU: got {share} ({said}), expected 0, or a torchvision with nvJPEG"
        raise RecipeError(source.recipe, [Problem(source.at(path), path, text)]) from error


@contextmanager
def reported_at(source: Source, path: KeyPath) -> Iterator[None]:
    """A UserError within the block is a mistake of the recipe's at `path`."""
    try:
        yield
    except UserError as error:
        raise RecipeError(source.recipe, [Problem(source.at(path), path, str(error))]) from error
