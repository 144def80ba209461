"""The ImageNet recipes against the formulas and settings of the implementations that they follow."""

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy

from distcls.data.augmenting.resolution import Resolution
from distcls.models import build_classifier
from distcls.registry import HEADS, OPTIMIZERS, SCHEDULES
from tests.recipe.imagenet import NAMES, recipe, steps_per_epoch


def rate(name: str) -> Any:
    """Step -> learning rate."""
    one, steps = recipe(name), steps_per_epoch(name)
    schedule = SCHEDULES.build(one.schedule, total_steps=round(one.train.epochs * steps), steps_per_epoch=steps)
    return lambda step: one.optimizer["lr"] * schedule(step)


@cache
def undecayed(name: str) -> tuple[set[str], dict[str, int]]:
    """Names of parameters without weight decay, and of all with their dimensions."""
    one = recipe(name)
    with torch.device("meta"):
        model = build_classifier(one.model.model_dump(), image_size=(224, 224), init_weights=False)
    groups = OPTIMIZERS.build(one.optimizer, model=model).param_groups
    without = {parameter for group in groups if group["weight_decay"] == 0 for parameter in group["names"]}
    return without, {parameter: weight.ndim for parameter, weight in model.named_parameters()}


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
        assert Resolution(**one.data.resolution.model_dump()).at(epoch) == int(np.round(line / 32)) * 32
    assert [entry["type"] for entry in one.data.augment] == ["RandomResizedCrop", "RandomHorizontalFlip"]
    assert (one.data.val.resolution, one.data.val.crop_ratio, one.eval.tta) == (256, 224 / 256, "flip")
    assert (one.train.precision, one.data.interpolation) == ("fp16", "ffcv_area")
    assert one.model.head["loss"] == {"type": "LabelSmoothLoss", "label_smooth_val": 0.1}
    without, names = undecayed(name)
    assert without == {parameter for parameter in names if "bn" in parameter}
    assert "backbone.layer2.0.downsample.1.weight" in names.keys() - without


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def timm_by_epoch(epoch: int, rate: float, start: float, end: float, warmup: int, epochs: int) -> float:
    """timm's CosineLRScheduler without warmup_prefix."""
    return start + (rate - start) * epoch / warmup if epoch < warmup else end + (rate - end) * cosine(epoch / epochs)


def warm_then_cosine(x: float, rate: float, start: float, end: float, warmup: int, epochs: int) -> float:
    """Of Swin, ConvNeXt, MAE and torchvision; x in epochs."""
    if x < warmup:
        return start + (rate - start) * x / warmup
    return end + (rate - end) * cosine((x - warmup) / (epochs - warmup))


def big_vision(step: float, rate: float, warmup: int, steps: int) -> float:
    """Of vit_s16_i1k: the cosine and the warm-up are factors of each other."""
    return rate * cosine(min(max((step - warmup) / (steps - warmup), 0), 1)) * min(1, step / warmup)


BY_EPOCH = {
    "imagenet_r50_tv2": lambda epoch: warm_then_cosine(epoch, 0.5, 0.005, 0, 5, 600),
    "imagenet_r50_rsb_a3": lambda epoch: timm_by_epoch(epoch, 8e-3, 1e-4, 1e-6, 5, 100),
    "imagenet_r50_rsb_a2": lambda epoch: timm_by_epoch(epoch, 5e-3, 1e-4, 1e-6, 5, 300),
    "imagenet_deit_small": lambda epoch: timm_by_epoch(epoch, 1e-3, 1e-6, 1e-5, 5, 300),
    "imagenet_mobilenetv3_large": lambda epoch: 0.064 * 0.973 ** (epoch // 2),
}
BY_STEP = {
    "imagenet_convnext_tiny": lambda x: warm_then_cosine(x, 4e-3, 0, 1e-6, 20, 300),
    "imagenet_swin_tiny": lambda x: warm_then_cosine(x, 1e-3, 1e-6, 1e-5, 20, 300),
    "imagenet_vit_h14_zero": lambda x: warm_then_cosine(x, 1.6e-3, 0, 0, 20, 200),
    "imagenet_vit_s16": lambda x: big_vision(x * 1251, 1e-3, 10_000, 90 * 1251),
    "imagenet_r50": lambda x: warm_then_cosine(x, 0.4, 0.004, 0, 5, 90),
}


@pytest.mark.parametrize("name", BY_EPOCH)
def test_rate_by_epoch(name: str) -> None:
    ours, steps = rate(name), steps_per_epoch(name)
    for epoch in range(recipe(name).train.epochs):
        for step in (epoch * steps, epoch * steps + steps // 2, (epoch + 1) * steps - 1):
            assert ours(step) == pytest.approx(BY_EPOCH[name](epoch), rel=1e-9, abs=1e-12), f"epoch {epoch}"


@pytest.mark.parametrize("name", BY_STEP)
def test_rate_by_step(name: str) -> None:
    ours, steps = rate(name), steps_per_epoch(name)
    every = range(recipe(name).train.epochs * steps)
    theirs = [BY_STEP[name](step / steps) for step in every]
    np.testing.assert_allclose([ours(step) for step in every], theirs, rtol=1e-9, atol=1e-12)


RRC, FLIP = (
    {"type": "RandomResizedCrop", "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3]},
    {"type": "RandomHorizontalFlip"},
)


def rand_augment(magnitude: int) -> dict[str, Any]:
    """timm's rand-m{magnitude}-mstd0.5-inc1."""
    rand = {
        "type": "RandAugment",
        "num_ops": 2,
        "magnitude": magnitude,
        "num_magnitude_bins": 11,
        "mstd": 0.5,
        "p": 0.5,
    }
    return {**rand, "policies": "timm_increasing", "interpolation": "bicubic", "fill": [124.0, 116.0, 104.0]}


PIXELS = {"type": "RandomErasing", "p": 0.25, "scale": [0.02, 1 / 3], "ratio": [0.3, 10 / 3], "value": "random"}
# recipe: augmentation after crop and flip, (Mixup, CutMix), (side of training, of evaluation), crop ratio, repeats, batch, epochs
DATA = {
    "imagenet_r50": ([], (), (224, None, 0.875), 1, (1024, 90)),
    "imagenet_r50_tv2": (
        [{"type": "TrivialAugmentWide", "interpolation": "bilinear"}, {"type": "RandomErasing", "p": 0.1}],
        (0.2, 1.0),
        (176, 224, 224 / 232),
        4,
        (1024, 600),
    ),
    "imagenet_r50_rsb_a3": ([rand_augment(6)], (0.1, 1.0), (160, 224, 0.95), 1, (2048, 100)),
    "imagenet_r50_rsb_a2": ([rand_augment(7)], (0.1, 1.0), (224, 224, 0.95), 3, (2048, 300)),
    "imagenet_mobilenetv3_large": (
        [
            {"type": "AutoAugment", "policy": "imagenet", "interpolation": "bilinear"},
            {"type": "RandomErasing", "p": 0.2},
        ],
        (),
        (224, None, 0.875),
        1,
        (1024, 600),
    ),
    "imagenet_convnext_tiny": ([rand_augment(9), PIXELS], (0.8, 1.0), (224, None, 0.875), 1, (4096, 300)),
    "imagenet_swin_tiny": ([rand_augment(9), PIXELS], (0.8, 1.0), (224, None, 0.875), 1, (1024, 300)),
    "imagenet_deit_small": ([rand_augment(9), PIXELS], (0.8, 1.0), (224, None, 0.875), 3, (1024, 300)),
    "imagenet_vit_h14_zero": ([rand_augment(9)], (0.8, 1.0), (224, None, 0.875), 1, (4096, 200)),
}


PILLOWS = {"imagenet_r50_rsb_a3", "imagenet_r50_rsb_a2", "imagenet_convnext_tiny", "imagenet_swin_tiny"}
PILLOWS |= {"imagenet_deit_small", "imagenet_vit_h14_zero"}


@pytest.mark.parametrize("name", [*DATA, "imagenet_r50", "imagenet_vit_s16"])
def test_crops_are_resized_as_the_originals(name: str) -> None:
    assert recipe(name).data.interpolation == ("bicubic" if name in PILLOWS else "bilinear")


@pytest.mark.parametrize("name", DATA)
def test_data_and_length(name: str) -> None:
    augment, mix, sides, repeats, length = DATA[name]
    one = recipe(name)
    assert json.loads(json.dumps(one.data.augment)) == [RRC, FLIP, *augment]  # tuples as lists
    assert tuple(entry["alpha"] for entry in one.data.mix) == mix
    assert (one.data.resolution, one.data.val.resolution, one.data.val.crop_ratio) == sides
    assert (one.data.repeats if one.data.sampler == "repeated" else 1) == repeats
    assert (one.train.global_batch_size, one.train.epochs) == length


# recipe: weight decay, and what has none: parts of names, and everything of one dimension
DECAY = {
    "imagenet_r50": (1e-4, (), False),
    "imagenet_r50_tv2": (2e-5, ("bn", "downsample.1."), False),
    "imagenet_r50_rsb_a3": (0.02, (), True),
    "imagenet_r50_rsb_a2": (0.02, (), True),
    "imagenet_mobilenetv3_large": (1e-5, (), False),
    "imagenet_convnext_tiny": (0.05, (), True),
    "imagenet_swin_tiny": (0.05, ("relative_position_bias_table",), True),
    "imagenet_deit_small": (0.05, ("pos_embed", "cls_token"), True),
    "imagenet_vit_h14_zero": (0.3, ("pos_embed", "cls_token"), True),
    "imagenet_vit_s16": (0.1, (), True),
}


@pytest.mark.parametrize("name", DECAY)
def test_weight_decay(name: str) -> None:
    decay, parts, flat = DECAY[name]
    assert recipe(name).optimizer["weight_decay"] == decay
    without, shapes = undecayed(name)
    theirs = {key for key, ndim in shapes.items() if (flat and ndim == 1) or any(part in key for part in parts)}
    assert without == theirs


def test_big_vision_vit() -> None:
    one = recipe("imagenet_vit_s16")
    crop, flip, rand = one.data.augment
    assert (crop["scale"], crop["ratio"], flip) == ((0.05, 1.0), (0.75, 1.33), FLIP)
    assert rand == {
        "type": "RandAugment",
        "num_ops": 2,
        "magnitude": 10,
        "num_magnitude_bins": 11,
        "fill": (128.0,) * 3,
    }
    assert [dict(entry) for entry in one.data.mix] == [{"type": "Mixup", "alpha": 0.2}]
    assert one.optimizer["lr"] * one.optimizer["weight_decay"] == pytest.approx(1e-4)  # theirs is not times the rate
    assert (one.train.clip_grad_norm, one.train.global_batch_size, one.train.epochs) == (1.0, 1024, 90)
    block = one.model.model_dump()
    with torch.device("meta"):
        model = build_classifier(block, image_size=(224, 224), init_weights=False)
    # 12 layers of width 384, patches of 16 x 16, one norm behind them, a hidden layer and the classifier
    layer = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
    expected = 12 * layer + (768 * 384 + 384) + 2 * 384 + (384 * 384 + 384) + 385 * 1000
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == expected


STARTS = {"imagenet_deit_small": "trunc_normal", "imagenet_swin_tiny": "trunc_normal"}
STARTS |= {"imagenet_vit_h14_zero": "xavier_uniform", "imagenet_vit_s16": "xavier_uniform"}


@pytest.mark.parametrize("name", STARTS)
def test_linear_layers_start_as_the_originals(name: str) -> None:
    assert recipe(name).model.backbone["linear_init"] == STARTS[name]


@pytest.mark.parametrize("name", ["imagenet_r50_rsb_a3", "imagenet_r50_rsb_a2"])
def test_rsb_loss_is_timms_mean_over_images_and_classes(name: str) -> None:
    torch.manual_seed(0)
    scores, target = torch.randn(3, 1000), torch.rand(3, 1000)
    head = HEADS.build({**recipe(name).model.head, "in_channels": 8})
    theirs = BinaryCrossEntropy(smoothing=0.0, target_threshold=0.2)(scores, target)
    torch.testing.assert_close(sum(head.losses(scores, target).values()), theirs)


def test_every_recipe_is_held_against_its_source() -> None:
    ffcv = {name for name, *_ in FFCV}  # test_ffcv has all of these
    for table in (BY_EPOCH | BY_STEP, DATA.keys() | {"imagenet_vit_s16"}, DECAY):
        assert ffcv | set(table) == NAMES
