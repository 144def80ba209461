"""The classifier of a recipe: built with its initial weights, moved to the device, compiled."""

import torch
from accelerate import Accelerator
from torch import nn

from distcls.engine.building.cuda_graphs import capture_backbone
from distcls.engine.building.initial_weights import InitialWeights
from distcls.engine.building.loaders import resolution_of
from distcls.engine.checks.fit import model_misfits
from distcls.engine.checks.located import located_at
from distcls.engine.seeding import seed_building
from distcls.engine.strategies.blocks import checkpoint_activations, find_blocks
from distcls.engine.strategies.buffers import same_start
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier, build_classifier
from distcls.models.freezing import freeze
from distcls.models.weights import Report
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source


def build_model(
    recipe: Recipe, source: Source, initial_weights: InitialWeights | None = None, resuming: bool = False
) -> tuple[ImageClassifier, Report | None]:
    """Build the classifier on the CPU, load its initial weights and freeze what `model.freeze` names.

    Args:
        initial_weights: of `model.init`; None: random ones.
        resuming: a checkpoint is about to replace all weights, so none are initialised or loaded.

    Returns:
        The classifier, and the report on what was loaded from `model.init`.

    Raises:
        UserError: a part refuses its arguments.
        RecipeError: the model does not fit the images, the weights do not fit the model, or `model.freeze` matches
            nothing.
    """
    seed_building(recipe.train.seed)
    resolution = resolution_of(recipe.data.resolution)
    model = build_classifier(
        recipe.model.model_dump(), image_size=(resolution.end, resolution.end), init_weights=not resuming
    )
    if mistakes := model_misfits(model, recipe, resolution):
        raise source.error(*mistakes)
    report = None if resuming or initial_weights is None else initial_weights.load_into(model)
    with located_at(source, ("model", "freeze")):
        freeze(model, recipe.model.freeze)
    return model, report


def place_model(recipe: Recipe, classifier: ImageClassifier, accelerator: Accelerator, weights: torch.dtype) -> None:
    """Move the classifier to this rank's device, with the memory format and BatchNorm of the recipe."""
    classifier.to(device=accelerator.device, dtype=weights)
    if recipe.train.channels_last and recipe.distributed.strategy == "ddp":
        classifier.to(memory_format=torch.channels_last)
    same_start(classifier, accelerator.num_processes)
    if recipe.distributed.sync_bn and accelerator.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # in place: the classifier itself is no BatchNorm


def blocks_of(recipe: Recipe, source: Source, classifier: ImageClassifier) -> list[nn.Module]:
    """The repeated blocks of the classifier: the units of sharding and of activation checkpointing.

    Raises:
        RecipeError: `distributed.wrap` matches nothing, or activation checkpointing needs blocks and there are none.
    """
    with located_at(source, ("distributed", "wrap")):
        blocks = find_blocks(classifier, recipe.distributed.wrap)
        if not blocks and recipe.distributed.activation_checkpointing:
            name = type(classifier.backbone).__name__
            raise UserError(f"needed for activation_checkpointing: {name} has no blocks that repeat, name classes here")
    return blocks


def compile_model(
    recipe: Recipe,
    classifier: ImageClassifier,
    blocks: list[nn.Module],
    accelerator: Accelerator,
    images: torch.dtype,
) -> None:
    """Apply activation checkpointing, torch.compile and CUDA graphs if the recipe asks for them.

    Args:
        images: dtype of the loader's images.
    """
    train = recipe.train
    if recipe.distributed.activation_checkpointing:
        checkpoint_activations(blocks)
    if train.compile:
        # In place, so that the weights keep their names. With sharded blocks the graph breaks at every block; blocks
        # share their code but not their shapes, so compile each shape and not one graph of dynamic shapes.
        classifier.compile(dynamic=False if recipe.distributed.strategy in ("fsdp2", "zero3") else None)
    if train.cuda_graphs and accelerator.device.type == "cuda":
        batch, size = train.global_batch_size // accelerator.num_processes, resolution_of(recipe.data.resolution).end
        capture_backbone(classifier.backbone, batch, size, images, accelerator)
