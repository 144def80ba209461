"""The ImageNet recipes against the formulas and settings of the implementations that they follow."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distcls.data.resolution import Progressive
from distcls.engine.plugins import import_parts
from distcls.models import build_classifier
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import read
from distcls.registry import OPTIMIZERS, SCHEDULES

RECIPES = Path(__file__).parents[2] / "recipes"
IMAGES = 1_281_167


@cache
def recipe(name: str) -> Recipe:
    import_parts()
    return check(read(RECIPES / f"{name}.yaml", []))


def steps_per_epoch(name: str) -> int:
    return IMAGES // recipe(name).train.global_batch_size


def rate(name: str) -> Any:
    """Step -> learning rate."""
    one, steps = recipe(name), steps_per_epoch(name)
    schedule = SCHEDULES.build(one.schedule, total_steps=round(one.train.epochs * steps), steps_per_epoch=steps)
    return lambda step: one.optimizer["lr"] * schedule(step)


@cache
def undecayed(name: str) -> tuple[set[str], set[str]]:
    """Names of parameters without weight decay, and of all."""
    one = recipe(name)
    with torch.device("meta"):
        model = build_classifier(one.model.model_dump(), image_size=(224, 224), init_weights=False)
    groups = OPTIMIZERS.build(one.optimizer, model=model).param_groups
    without = {parameter for group in groups if group["weight_decay"] == 0 for parameter in group["names"]}
    return without, {parameter for group in groups for parameter in group["names"]}


FFCV = [
    # recipe, peak rate, epochs, ramp, batch, weight decay
    ("imagenet_r50_ffcv16", 1.7, 16, (11, 13), 4096, 1e-4),
    ("imagenet_r50_ffcv88", 1.7, 88, (65, 76), 4096, 1e-4),
    ("imagenet_r18_ffcv88", 0.5, 88, (65, 76), 1024, 5e-5),
]


@pytest.mark.parametrize(("name", "peak", "epochs", "ramp", "batch", "decay"), FFCV)
def test_ffcv(name: str, peak: float, epochs: int, ramp: tuple[int, int], batch: int, decay: float) -> None:
    one, ours, steps = recipe(name), rate(name), steps_per_epoch(name)
    assert (one.train.epochs, one.train.global_batch_size) == (epochs, batch)
    assert (one.optimizer["momentum"], one.optimizer["weight_decay"]) == (0.9, decay)
    for epoch in range(epochs):
        start, end = np.interp([epoch, epoch + 1], [0, 2, epochs], [1e-4 * peak, peak, 0])
        theirs = np.interp(np.arange(steps), [0, steps], [start, end])
        np.testing.assert_allclose([ours(epoch * steps + i) for i in range(steps)], theirs, rtol=1e-9, atol=1e-12)
        line = 160 if epoch <= ramp[0] else 192 if epoch >= ramp[1] else np.interp(epoch, ramp, (160, 192))
        assert Progressive(**one.data.resolution.model_dump()).at(epoch) == int(np.round(line / 32)) * 32
    assert [entry["type"] for entry in one.data.augment] == ["RandomResizedCrop", "RandomHorizontalFlip"]
    assert (one.data.val.resolution, one.data.val.crop_ratio, one.eval.tta) == (256, 224 / 256, "flip")
    assert (one.train.precision, one.data.interpolation) == ("fp16", "ffcv_area")
    assert one.model.head["loss"] == {"type": "LabelSmoothLoss", "label_smooth_val": 0.1}
    without, names = undecayed(name)
    assert without == {parameter for parameter in names if "bn" in parameter}
    assert "backbone.layer2.0.downsample.1.weight" in names - without
