"""Average, regularisation and optimizer of the ImageNet recipes against the code that they follow."""

import math

import pytest
import torch

from distcls.optim.ema import Ema
from distcls.registry import OPTIMIZERS
from tests.recipe.imagenet import NAMES, recipe, steps_per_epoch

FFCV = ("imagenet_r50_ffcv16", "imagenet_r50_ffcv88", "imagenet_r18_ffcv88")
# recipe: decay, updates from one time to the next, epochs before it begins. torchvision's decay is given for another batch and length, see
# references/classification/train.py; the others' is that of every update.
AVERAGE = {
    "imagenet_r50_tv2": (1 - (1 - 0.99998) * 1024 * 32 / 600, 32, 5),
    "imagenet_convnext_tiny": (0.9999, 1, 0),
    "imagenet_vit_h14_zero": (0.9999, 1, 0),
}


@pytest.mark.parametrize("name", AVERAGE)
def test_average_of_the_weights(name: str) -> None:
    """Share of each update's weights in the average that a run ends with, from the code that trains it."""
    decay, every, start = AVERAGE[name]
    settings, steps = recipe(name).train.ema, steps_per_epoch(name)
    assert settings.buffers == ("average" if name != "imagenet_vit_h14_zero" else "copy")  # of a ViT there are none
    first, number = round(start * steps), 40 * every
    weight = torch.zeros(1, dtype=torch.float64)
    ema = Ema(
        {"weight": weight},
        decay=settings.decay,
        every_steps=settings.every_steps,
        start_step=round(settings.start_epoch * steps),
    )
    begun = first // every * every  # the last time that copies
    theirs = torch.zeros(1, dtype=torch.float64)
    for step in range(max(begun - every, 0) + 1, begun + number + 1):
        weight.fill_(math.sin(step))
        ema.update(step)
        if step % every == 0:
            theirs = weight.clone() if step <= first else decay * theirs + (1 - decay) * weight
    torch.testing.assert_close(ema.state()["weight"], theirs, rtol=1e-6, atol=0)
    assert all(recipe(other).train.ema is None for other in NAMES - AVERAGE.keys())


# recipe: label smoothing (None: the loss is none of that kind), drop path, largest norm of the gradient
REGULAR = {
    "imagenet_r50": (None, 0.0, None),
    "imagenet_r50_tv2": (0.1, 0.0, None),
    "imagenet_r50_rsb_a3": (None, 0.0, None),
    "imagenet_r50_rsb_a2": (None, 0.05, None),
    "imagenet_mobilenetv3_large": (None, 0.0, None),
    "imagenet_convnext_tiny": (0.1, 0.1, None),
    "imagenet_swin_tiny": (0.1, 0.2, 5.0),
    "imagenet_deit_small": (0.1, 0.1, None),
    "imagenet_vit_h14_zero": (0.1, 0.2, None),
    "imagenet_vit_s16": (None, 0.0, 1.0),
    **dict.fromkeys(FFCV, (0.1, 0.0, None)),
}


@pytest.mark.parametrize("name", REGULAR)
def test_smoothing_drop_path_and_clipping(name: str) -> None:
    one, (smoothing, drop_path, norm) = recipe(name), REGULAR[name]
    assert one.model.head["loss"].get("label_smooth_val") == smoothing
    assert (one.model.backbone.get("drop_path_rate", 0.0), one.train.clip_grad_norm) == (drop_path, norm)


OPTIMIZER = {
    **dict.fromkeys(("imagenet_r50", "imagenet_r50_tv2"), ("SGD", {"momentum": 0.9})),
    **dict.fromkeys(FFCV, ("SGD", {"momentum": 0.9})),
    **dict.fromkeys(("imagenet_r50_rsb_a3", "imagenet_r50_rsb_a2"), ("Lamb", {"betas": (0.9, 0.999), "eps": 1e-6})),
    "imagenet_mobilenetv3_large": ("RMSprop", {"alpha": 0.9, "eps": 0.0316, "momentum": 0.9}),
    "imagenet_vit_h14_zero": ("AdamW", {"betas": (0.9, 0.95)}),
    **dict.fromkeys(
        ("imagenet_convnext_tiny", "imagenet_swin_tiny", "imagenet_deit_small", "imagenet_vit_s16"),
        ("AdamW", {"betas": (0.9, 0.999), "eps": 1e-8}),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZER)
def test_optimizer(name: str) -> None:
    """As it is built: with the defaults of its class."""
    kind, settings = OPTIMIZER[name]
    model = torch.nn.Linear(2, 2)
    built = OPTIMIZERS.build({**recipe(name).optimizer, "paramwise_cfg": None}, model=model)
    assert recipe(name).optimizer["type"] == kind
    assert {key: built.defaults[key] for key in settings} == settings
    assert not built.defaults.get("nesterov", False)


def test_every_recipe_is_here() -> None:
    assert set(REGULAR) == set(OPTIMIZER) == NAMES
