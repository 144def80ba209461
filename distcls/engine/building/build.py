"""Recipe -> job: builds one rank's objects, in the order in which they need each other."""

from accelerate import Accelerator
from torch import nn, optim

from distcls.engine.building.datasets import Datasets
from distcls.engine.building.initial_weights import InitialWeights
from distcls.engine.building.loaders import build_loaders, resolution_of
from distcls.engine.building.model import blocks_of, build_model, compile_model, place_model
from distcls.engine.building.precision import dtypes_of
from distcls.engine.evaluation.class_metrics import ClassMetrics
from distcls.engine.evaluation.predictions import Predictions
from distcls.engine.job import Job
from distcls.engine.performance.bottleneck import Settings
from distcls.engine.performance.device_facts import device_facts
from distcls.engine.ranks.heartbeat import Heartbeat
from distcls.engine.ranks.topology import cores_per_rank
from distcls.engine.stopping.preemption import StopRequest
from distcls.engine.strategies.buffers import running_statistics
from distcls.engine.strategies.choose import make_strategy
from distcls.engine.strategies.strategy import Strategy
from distcls.models.classifier import ImageClassifier, set_class_counts
from distcls.optim.ema import Ema
from distcls.optim.param_groups import learning_rates
from distcls.recipe.schema import Ema as EmaSettings
from distcls.recipe.schema import Recipe
from distcls.recipe.source import Source
from distcls.registry import OPTIMIZERS, SCHEDULES
from distcls.tracking.console import Console
from distcls.tracking.trackers import Trackers


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
    """Build this rank's model, optimizer, schedule and loaders.

    Args:
        initial_weights, resuming: see `build_model`.

    Raises:
        UserError: a part refuses its arguments, or the initial weights do not fit.
    """
    train = recipe.train
    weights, images = dtypes_of(train.precision, accelerator.device)
    classifier, report = build_model(recipe, source, initial_weights, resuming)
    if report is not None and initial_weights is not None:
        initial_weights.compare(report, recipe, datasets.train)
        for line in report.lines():
            console.note(line)
        for line in report.warnings:
            console.warn(f"{report.path}: {line}")
        trackers.event("initial_weights", **report.counts(), warnings=report.warnings)
    place_model(recipe, classifier, accelerator, weights)
    set_class_counts(classifier, datasets.train.class_counts.tolist())
    # Count the operations of the plain model, before it is compiled or wrapped.
    facts = device_facts(accelerator, classifier, train.precision, resolution_of(recipe.data.resolution))
    blocks = blocks_of(recipe, source, classifier)
    compile_model(recipe, classifier, blocks, accelerator, images)
    strategy = _strategy(recipe, classifier, blocks, accelerator)
    optimizer = strategy.torch_optimizer
    train_loader, val_loader = build_loaders(recipe, datasets, accelerator, images, local_world_size)
    steps_per_epoch = train_loader.steps_per_epoch
    total_steps = train.max_steps or round((train.epochs or 0) * steps_per_epoch)
    return Job(
        accelerator=accelerator,
        classifier=classifier,
        strategy=strategy,
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
            world_size=accelerator.num_processes,
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
        learning_rates=learning_rates(optimizer.param_groups, optimizer.defaults["lr"]),
        device_facts=facts,
        settings=Settings(
            workers=train_loader.workers,
            cores=cores_per_rank(local_world_size),
            precision=train.precision,
            compiled=train.compile or train.cuda_graphs,
            accumulation_steps=train.accumulation_steps,
            global_batch_size=train.global_batch_size,
            evaluate_every_epochs=recipe.eval.every_epochs,
            checkpoint_every_steps=recipe.checkpoint.every_steps,
            gpu=accelerator.device.type == "cuda",
        ),
    )


def _strategy(
    recipe: Recipe, classifier: ImageClassifier, blocks: list[nn.Module], accelerator: Accelerator
) -> Strategy:
    train = recipe.train
    return make_strategy(
        recipe.distributed.strategy,
        accelerator,
        classifier,
        lambda: _optimizer(recipe, classifier),
        blocks=blocks,
        micro_batch=train.global_batch_size // (accelerator.num_processes * train.accumulation_steps),
        accumulation_steps=train.accumulation_steps,
        clip_grad_norm=train.clip_grad_norm,
        deepspeed_overrides=recipe.distributed.deepspeed_overrides,
    )


def _optimizer(recipe: Recipe, classifier: ImageClassifier) -> optim.Optimizer:
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
