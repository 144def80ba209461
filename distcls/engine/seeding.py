"""Seeds for the model's own randomness (initial weights, dropout, drop path), from the recipe's seed and the step."""

import hashlib

import torch


def seed_micro_batch(seed: int, step: int, chunk: int) -> None:
    """Seed torch's generators on all devices for one micro-batch.

    `chunk` is the micro-batch's place in the global batch (accumulation index x ranks + rank), so that two ranks drop
    the same units as one rank that accumulates over two. No generator state is ever saved.
    """
    torch.manual_seed(_hash(f"{seed}/{step}/{chunk}"))


def seed_building(seed: int) -> None:
    """Seed the initialisation of the weights: alike on every rank, and unlike every micro-batch's seed."""
    torch.manual_seed(_hash(f"{seed}/build"))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
