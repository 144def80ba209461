"""Recipe -> objects. The only file that does it: nothing below receives the recipe, only plain values from here."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import EvalLoader, TrainLoader
from distcls.engine.building.cuda_graphs import capture_backbone
from distcls.engine.building.initial_weights import InitialWeights
from distcls.engine.building.loader_arguments import resolution_of, sampling_of
from distcls.engine.checks.fit import misfits, model_misfits
from distcls.engine.checks.located import located_at
from distcls.engine.evaluation.class_metrics import ClassMetrics
from distcls.engine.evaluation.predictions import Predictions
from distcls.engine.job import Job
from distcls.engine.performance.device_facts import device_facts
from distcls.engine.ranks.heartbeat import Heartbeat
from distcls.engine.ranks.topology import cores_per_rank
from distcls.engine.seeding import seed_building
from distcls.engine.stopping.preemption import StopRequest
from distcls.engine.strategies.blocks import checkpoint_activations, find_blocks
from distcls.engine.strategies.buffers import running_statistics, same_start
from distcls.engine.strategies.choose import make_strategy
from distcls.engine.strategies.strategy import Strategy
from distcls.errors import UserError
from distcls.models.classifier import ImageClassifier, build_classifier, set_class_counts
from distcls.models.freezing import freeze
from distcls.models.weights import Report
from distcls.optim.ema import Ema
from distcls.optim.param_groups import learning_rates
from distcls.recipe.errors import Mistake
from distcls.recipe.schema import Ema as EmaSettings
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source
from distcls.registry import MIXES, OPTIMIZERS, SCHEDULES, TRANSFORMS
from distcls.tracking.console import Console
from distcls.tracking.trackers import Trackers

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Datasets:
    """Both splits, opened and checked."""

    train: BetonDataset
    val: BetonDataset


def open_datasets(recipe: Recipe, source: Source) -> Datasets:
    """Map and check the files, and hold the recipe against them; touches no GPU.

    Raises:
        RecipeError: a file is missing or damaged, or the recipe does not fit what is in it.
    """
    mistakes: list[Mistake] = []
    opened = []
    for split, paths in (("train", recipe.data.train.path), ("val", recipe.data.val.path)):
        try:
            opened.append(BetonDataset(paths))
        except DataError as error:
            mistakes.append((("data", split, "path"), str(error)))
    if mistakes:
        raise source.error(*mistakes)
    train, val = opened
    if mistakes := misfits(recipe, train, val):
        raise source.error(*mistakes)
    return Datasets(train, val)


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
    resolution, size = resolution_of(recipe.data.resolution)
    model = build_classifier(recipe.model.model_dump(), image_size=(size, size), init_weights=not resuming)
    if mistakes := model_misfits(model, recipe, resolution):
        raise source.error(*mistakes)
    report = None if resuming or initial_weights is None else initial_weights.load_into(model)
    with located_at(source, ("model", "freeze")):
        freeze(model, recipe.model.freeze)
    return model, report


def build_job(
    recipe: Recipe,
    source: Source,
    datasets: Datasets,
    accelerator: Accelerator,
    *,
    initial_weights: InitialWeights | None,
    resuming: bool,
    local_world_size: int,
    trackers: Trackers,
    console: Console,
    stop: StopRequest,
    heart: Heartbeat,
) -> Job:
    """Build model, optimizer, schedule and loaders for this rank; see `build_model` for the weights.

    Raises:
        UserError: a part refuses its arguments, or the weights to start from.
    """
    train = recipe.train
    ranks = accelerator.num_processes
    # Autocast keeps the weights in float32; a GPU gets its images in half precision at once: half the bytes.
    weights = torch.float64 if train.precision == "fp64" else torch.float32
    images = HALF.get(train.precision, weights) if accelerator.device.type == "cuda" else weights

    resolution, size = resolution_of(recipe.data.resolution)
    classifier, report = build_model(recipe, source, initial_weights, resuming)
    if report is not None:
        for line in report.lines():
            console.note(line)
        trackers.event("initial_weights", **report.counts())
    classifier.to(device=accelerator.device, dtype=weights)
    set_class_counts(classifier, datasets.train.class_counts.tolist())
    sharded = recipe.distributed.strategy != "ddp"
    if train.channels_last and not sharded:
        classifier.to(memory_format=torch.channels_last)
    same_start(classifier, ranks)
    if recipe.distributed.sync_bn and accelerator.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(classifier)  # in place: the classifier itself is no BatchNorm
    facts = device_facts(accelerator, classifier, train.precision, resolution)  # of the model as it is written
    blocks = _blocks(recipe, source, classifier)
    if recipe.distributed.activation_checkpointing:
        checkpoint_activations(blocks)
    if train.compile:
        # In place: names of weights stay what they are. Where blocks are gathered the graph breaks, and blocks share
        # their code but not their shapes: each shape is compiled for itself, not one graph of dynamic shapes.
        classifier.compile(dynamic=False if recipe.distributed.strategy in ("fsdp2", "zero3") else None)
    if train.cuda_graphs and accelerator.device.type == "cuda":
        capture_backbone(classifier.backbone, train.global_batch_size // ranks, size, images, accelerator)
    strategy = make_strategy(
        recipe.distributed.strategy,
        accelerator,
        classifier,
        lambda: _optimizer(recipe, classifier),
        blocks=blocks,
        micro_batch=train.global_batch_size // (ranks * train.accumulation_steps),
        accumulation_steps=train.accumulation_steps,
        clip_grad_norm=train.clip_grad_norm,
        deepspeed_overrides=recipe.distributed.deepspeed_overrides,
    )

    train_loader, val_loader = _loaders(recipe, datasets, accelerator, images, local_world_size)
    base_rate = strategy.torch_optimizer.defaults["lr"]
    steps_per_epoch = train_loader.steps_per_epoch
    total_steps = train.max_steps or round((train.epochs or 0) * steps_per_epoch)
    return Job(
        accelerator=accelerator,
        classifier=classifier,
        strategy=strategy,
        base_rate=base_rate,
        schedule=SCHEDULES.build(recipe.schedule, total_steps=total_steps, steps_per_epoch=steps_per_epoch),
        ema=_average(train.ema, strategy, classifier, steps_per_epoch) if train.ema else None,
        train_loader=train_loader,
        val_loader=val_loader,
        trackers=trackers,
        console=console,
        stop=stop,
        heart=heart,
        metrics=_class_metrics(recipe, datasets, classifier, accelerator),
        predictions=Predictions(
            head=classifier.head,
            num_classes=datasets.val.num_classes,
            multi_label=datasets.val.multi_label,
            device=accelerator.device,
            world_size=ranks,
        ),
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        global_batch_size=train.global_batch_size,
        accumulation_steps=train.accumulation_steps,
        seed=train.seed,
        log_every_steps=train.log_every_steps,
        checkpoint_every_steps=recipe.checkpoint.every_steps,
        evaluate_every_epochs=recipe.eval.every_epochs,
        tta=recipe.eval.tta,
        learning_rates=learning_rates(strategy.torch_optimizer.param_groups, base_rate),
        device_facts=facts,
        cores=cores_per_rank(local_world_size),
        precision=train.precision,
        compiled=train.compile or train.cuda_graphs,
    )


def _loaders(
    recipe: Recipe, datasets: Datasets, accelerator: Accelerator, images: torch.dtype, local_world_size: int
) -> tuple[TrainLoader, EvalLoader]:
    """This rank's, of training and of validation; `images` is the type of number that their images have."""
    train, data = recipe.train, recipe.data
    ranks = accelerator.num_processes
    resolution, size = resolution_of(data.resolution)
    shape = {"rank": accelerator.process_index, "world_size": ranks, "device": accelerator.device, "dtype": images}
    shape["workers"] = data.workers or cores_per_rank(local_world_size)
    train_loader = TrainLoader(
        datasets.train,
        resolution=resolution,
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
        resolution=data.val.resolution or size,
        crop_ratio=data.val.crop_ratio,
        batch_size=recipe.eval.batch_size or train.global_batch_size // (ranks * train.accumulation_steps),
        mean=datasets.train.mean,
        std=datasets.train.std,
        interpolation=data.interpolation,
        **shape,
    )
    return train_loader, val_loader


def _optimizer(recipe: Recipe, classifier: ImageClassifier) -> torch.optim.Optimizer:
    optimizer = OPTIMIZERS.build(recipe.optimizer, model=classifier)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _average(settings: EmaSettings, strategy: Strategy, classifier: ImageClassifier, steps_per_epoch: int) -> Ema:
    return Ema(
        strategy.local_weights(),
        decay=settings.decay,
        every_steps=settings.every_steps,
        start_step=round(settings.start_epoch * steps_per_epoch),
        buffers=running_statistics(classifier) if settings.buffers == "average" else {},
        changed=strategy.weights_changed,
    )


def _blocks(recipe: Recipe, source: Source, classifier: ImageClassifier) -> list[nn.Module]:
    with located_at(source, ("distributed", "wrap")):
        blocks = find_blocks(classifier, recipe.distributed.wrap)
        if not blocks and recipe.distributed.activation_checkpointing:
            name = type(classifier.backbone).__name__
            raise UserError(f"needed for activation_checkpointing: {name} has no blocks that repeat, name classes here")
    return blocks


def _class_metrics(
    recipe: Recipe, datasets: Datasets, classifier: ImageClassifier, accelerator: Accelerator
) -> ClassMetrics | None:
    if not recipe.eval.metrics:
        return None
    return ClassMetrics(
        recipe.eval.metrics,
        head=classifier.head,
        class_names=datasets.val.class_names,
        device=accelerator.device,
        world_size=accelerator.num_processes,
    )
