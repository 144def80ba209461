"""The classifier of a recipe: built with its weights, placed on this rank's device, made fast."""

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
    """The classifier on the CPU, with the weights to start from and with its frozen parts; and what was loaded.

    Args:
        initial_weights: of `model.init`; None starts from random ones.
        resuming: a checkpoint is about to replace all weights: none are looked for.

    Raises:
        UserError: a part refuses its arguments.
        RecipeError: the model does not fit the images, the weights do not fit it, or `model.freeze` names nothing.
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
    """Move it to this rank's device, in the layout and with the BatchNorm that the recipe asks for; all ranks alike."""
    classifier.to(device=accelerator.device, dtype=weights)
    if recipe.train.channels_last and recipe.distributed.strategy == "ddp":
        classifier.to(memory_format=torch.channels_last)
    same_start(classifier, accelerator.num_processes)
    if recipe.distributed.sync_bn and accelerator.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # in place: the classifier itself is no BatchNorm


def blocks_of(recipe: Recipe, source: Source, classifier: ImageClassifier) -> list[nn.Module]:
    """Its blocks that repeat: what strategies gather at once, and what is computed again for backward.

    Raises:
        RecipeError: the recipe's class names find none, or there are none and they are needed.
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
    """Activation checkpointing, torch.compile and CUDA graphs, where the recipe asks for them.

    Args:
        images: the type of number that the loader's images have.
    """
    train = recipe.train
    if recipe.distributed.activation_checkpointing:
        checkpoint_activations(blocks)
    if train.compile:
        # In place: names of weights stay what they are. Where blocks are gathered the graph breaks, and blocks share
        # their code but not their shapes: each shape is compiled for itself, not one graph of dynamic shapes.
        classifier.compile(dynamic=False if recipe.distributed.strategy in ("fsdp2", "zero3") else None)
    if train.cuda_graphs and accelerator.device.type == "cuda":
        batch, size = train.global_batch_size // accelerator.num_processes, resolution_of(recipe.data.resolution).end
        capture_backbone(classifier.backbone, batch, size, images, accelerator)
