"""Builds a rank's loaders from the recipe's data block."""

from typing import Any

import torch
from accelerate import Accelerator

from distcls.data.augmenting.resolution import Resolution
from distcls.data.loader import EvalLoader, TrainLoader
from distcls.engine.building.datasets import Datasets
from distcls.engine.ranks.topology import cores_per_rank
from distcls.recipe.schema import Data, ProgressiveResolution, Recipe
from distcls.registry import MIXES, TRANSFORMS


def build_loaders(
    recipe: Recipe, datasets: Datasets, accelerator: Accelerator, images: torch.dtype, local_world_size: int
) -> tuple[TrainLoader, EvalLoader]:
    """This rank's training and validation loader; `images` is the dtype of their images."""
    train, data = recipe.train, recipe.data
    ranks = accelerator.num_processes
    shape = {"rank": accelerator.process_index, "world_size": ranks, "device": accelerator.device, "dtype": images}
    shape["workers"] = data.workers or cores_per_rank(local_world_size)
    train_loader = TrainLoader(
        datasets.train,
        resolution=resolution_of(data.resolution),
        transforms=[TRANSFORMS.build(block) for block in data.augment],
        mixes=[MIXES.build(block) for block in data.mix],
        global_batch_size=train.global_batch_size,
        accumulation_steps=train.accumulation_steps,
        seed=train.seed,
        **sampling_of(data),
        **shape,
    )
    val_loader = EvalLoader(
        datasets.val,
        batch_size=recipe.eval.batch_size or train.global_batch_size // (ranks * train.accumulation_steps),
        mean=datasets.train.mean,
        std=datasets.train.std,
        **protocol_of(data),
        **shape,
    )
    return train_loader, val_loader


def sampling_of(data: Data) -> dict[str, Any]:
    """The arguments of TrainLoader that say how images are sampled and read."""
    return {
        "balanced": data.sampler == "balanced",
        "repeats": data.repeats if data.sampler == "repeated" else 1,
        "block_size": data.block_size if data.sampler == "block_shuffle" else None,
        "block_window": data.block_window,
        "gpu_decode_share": data.gpu_decode_share,
        "interpolation": data.interpolation,
    }


def protocol_of(data: Data) -> dict[str, Any]:
    """The arguments of EvalLoader that make up its `protocol`."""
    return {
        "resolution": data.val.resolution or resolution_of(data.resolution).end,
        "crop_ratio": data.val.crop_ratio,
        "interpolation": data.interpolation,
    }


def resolution_of(key: int | ProgressiveResolution) -> Resolution:
    """`data.resolution` as a schedule; its `end` is the side that the model is built and evaluated for."""
    return Resolution.constant(key) if isinstance(key, int) else Resolution(**key.model_dump())
