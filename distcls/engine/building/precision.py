"""`train.precision` as torch's types of numbers."""

import torch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def types_of_numbers(precision: str, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """Of the weights, which autocast keeps in float32, and of the images.

    A GPU gets its images in half precision at once: half the bytes.
    """
    weights = torch.float64 if precision == "fp64" else torch.float32
    return weights, HALF.get(precision, weights) if device.type == "cuda" else weights
