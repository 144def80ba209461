"""Exact evaluation: every image of the set is counted once, on any number of ranks."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from distcls.data.loader import EvalLoader
from distcls.engine.evaluation.class_metrics import ClassMetrics
from distcls.engine.evaluation.predictions import Predictions
from distcls.engine.stopping.agreement import Agreement
from distcls.engine.totals import Totals
from distcls.models.classifier import ImageClassifier


def evaluate(
    model: nn.Module,
    classifier: ImageClassifier,
    loader: EvalLoader,
    *,
    device: torch.device,
    world_size: int,
    autocast: Callable[[], AbstractContextManager],
    tta: Literal["flip"] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
    beat: Callable[[], None] = lambda: None,
    metrics: ClassMetrics | None = None,
    predictions: Predictions | None = None,
) -> dict[str, float] | None:
    """Loss and top-k of `model` over the whole data set of `loader`.

    Every rank runs the same number of batches of the same size, so that the collectives of a sharded model match and a
    compiled model sees one shape; rows beyond a batch's `count` are padding and not counted.

    Args:
        model: the wrapped classifier, ``images (N, 3, H, W) -> logits (N, C)``.
        classifier: the same without its wrapper; its ``loss(logits, target)`` gives the losses and counts.
        tta: with "flip" an image's logits are the mean of its own and its mirror image's. ffcv-imagenet takes the sum,
            which ranks classes alike; the mean keeps the scale that loss and probabilities were trained on.
        stop_requested: whether this rank wants to stop early; all ranks agree on it between batches.
        beat: called once per batch, as a sign of life.
        metrics: further metrics to measure.
        predictions: collects every image's prediction, for the caller to read.

    Returns:
        Means over the samples of all ranks and their number ``n``, or None if a stop request cut it short.

    Raises:
        AssertionError: not every image was counted once.
    """
    collectors = [collector for collector in (metrics, predictions) if collector is not None]
    for collector in collectors:
        collector.start()
    training = model.training
    model.eval()
    totals = Totals(device, world_size)
    agreement = Agreement(device, world_size)
    quiet = torch.zeros((), device=device)
    try:
        with torch.no_grad(), loader.batches() as batches:
            for number, batch in enumerate(batches):
                with autocast():
                    logits = logits_of(model, batch.images, tta)
                    # A batch of nothing but padding is counted as zeros, under the same names.
                    rows = max(batch.count, 1)
                    values = classifier.loss(logits[:rows], batch.target[:rows].clamp(min=0))
                if not batch.count:
                    values = {name: torch.zeros_like(value) for name, value in values.items()}
                totals.add(values, batch.count)
                for collector in collectors:
                    collector.add(logits, batch.target, batch.index)
                beat()
                agreement.post(number, stop=stop_requested(), number=quiet)
                agreement.update()
                if agreement.stop:
                    return None
    finally:
        model.train(training)
    agreement.update(wait=True)
    if agreement.stop:
        return None
    means = totals.reduce().read()
    assert means["n"] == len(loader.dataset), f"evaluated {means['n']} images of {len(loader.dataset)}"
    return means if metrics is None else {**means, **metrics.result()}


def logits_of(model: nn.Module, images: Tensor, tta: Literal["flip"] | None) -> Tensor:
    """Images (N, 3, H, W) -> logits (N, C); for `tta` see `evaluate`."""
    logits = model(images)
    return (logits + model(images.flip(3))) / 2 if tta == "flip" else logits
