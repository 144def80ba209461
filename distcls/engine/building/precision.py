"""`train.precision` as torch dtypes."""

import torch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def dtypes_of(precision: str, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes of the weights, which autocast keeps in float32, and of the images.

    On a GPU images are made in half precision at once, which halves their bytes.
    """
    weights = torch.float64 if precision == "fp64" else torch.float32
    return weights, HALF.get(precision, weights) if device.type == "cuda" else weights
