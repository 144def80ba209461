"""What a recipe's sampler is to the training loader."""

from typing import Any

from distcls.recipe.schema import Data


def sampling_of(data: Data) -> dict[str, Any]:
    """Arguments of TrainLoader."""
    return {
        "balanced": data.sampler == "balanced",
        "repeats": data.repeats if data.sampler == "repeated" else 1,
        "block_size": data.block_size if data.sampler == "block_shuffle" else None,
        "block_window": data.block_window,
    }
