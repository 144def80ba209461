"""What the recipe's data block is to the training loader."""

from typing import Any

from distcls.data.augmenting.resolution import Progressive
from distcls.recipe.schema import Data, ProgressiveResolution


def sampling_of(data: Data) -> dict[str, Any]:
    """Arguments of TrainLoader, of how images are drawn and read."""
    return {
        "balanced": data.sampler == "balanced",
        "repeats": data.repeats if data.sampler == "repeated" else 1,
        "block_size": data.block_size if data.sampler == "block_shuffle" else None,
        "block_window": data.block_window,
        "gpu_decode_share": data.gpu_decode_share,
        "interpolation": data.interpolation,
    }


def resolution_of(key: int | ProgressiveResolution) -> tuple[int | Progressive, int]:
    """What the training loader takes, and the side in pixels that the model is built and evaluated for."""
    if isinstance(key, int):
        return key, key
    return Progressive(start=key.start, end=key.end, ramp=key.ramp, multiple_of=key.multiple_of), key.end
