"""Each operation against torchvision's on uint8: the same level for nearly every pixel, and one off at most."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from distcls.data.augmenting import pixel_ops
from distcls.data.augmenting.auto_augment import AutoAugment, TrivialAugmentWide
from distcls.data.augmenting.pixels import apply_layers
from distcls.data.augmenting.strengths import Strengths

SIZE = 25


@pytest.fixture(scope="module")
def images():
    """(4, 3, 25, 25) uint8: noise, a gradient, low contrast, one value."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (3, SIZE, SIZE))
    gradient = np.stack([np.add.outer(np.arange(SIZE) * k, np.arange(SIZE)) for k in (1, 2, 5)])
    dull = generator.integers(100, 140, (3, SIZE, SIZE))
    return torch.from_numpy(np.stack([noise, gradient, dull, np.full_like(dull, 77)]).astype(np.uint8))


def compare(mine, theirs, *, off_by_one=0.04):
    difference = (mine - theirs.float()).abs()
    assert difference.max() <= 1
    assert difference.mean() <= off_by_one


def applied(function, images, amounts):
    floats = images.float().to(memory_format=torch.channels_last)
    result = function(floats, torch.tensor(amounts, dtype=torch.float32))
    assert torch.equal(result, result.round())
    assert torch.equal(floats, images.float()), "operations leave their input alone"
    return result


AMOUNTS = [0.1, 0.7, 1.0, 1.9]


@pytest.mark.parametrize(
    ("function", "reference", "amounts"),
    [
        (pixel_ops.brightness, functional.adjust_brightness, AMOUNTS),
        (pixel_ops.contrast, functional.adjust_contrast, AMOUNTS),
        (pixel_ops.saturation, functional.adjust_saturation, AMOUNTS),
        (pixel_ops.sharpness, functional.adjust_sharpness, AMOUNTS),
        (pixel_ops.hue, functional.adjust_hue, [0.1, -0.3, 0.5, 0.2]),
        (pixel_ops.hue, functional.adjust_hue, [-0.5, 0.02, 0.31, -0.07]),
        (pixel_ops.posterize, lambda image, bits: functional.posterize(image, int(bits)), [2, 4, 7, 8]),
        (pixel_ops.posterize, lambda image, bits: functional.posterize(image, int(bits)), [8, 3, 5, 6]),
        (pixel_ops.solarize, functional.solarize, [128.0, 30.5, 120.0, 0.0]),
        (pixel_ops.auto_contrast, lambda image, _: functional.autocontrast(image), AMOUNTS),
        (pixel_ops.equalize, lambda image, _: functional.equalize(image), AMOUNTS),
        (pixel_ops.invert, lambda image, _: functional.invert(image), AMOUNTS),
        (pixel_ops.OPS["Gray"], lambda image, _: functional.rgb_to_grayscale(image, 3), AMOUNTS),
    ],
)
def test_operations_are_torchvisions(images, function, reference, amounts):
    for shift in range(4):
        order = torch.arange(4).roll(shift)
        mine = applied(function, images[order], amounts)
        theirs = torch.stack([reference(image, amount) for image, amount in zip(images[order], amounts, strict=True)])
        compare(mine, theirs)


def test_blur_is_torchvisions(images):
    sigmas = [0.1, 0.5, 1.0, 2.0]
    mine = applied(pixel_ops.blur, images, sigmas)
    theirs = [functional.gaussian_blur(image, [13, 13], [sigma]) for image, sigma in zip(images, sigmas, strict=True)]
    inside = (..., slice(6, -6), slice(6, -6))  # torchvision mirrors at the edge, Pillow repeats
    compare(mine[inside], torch.stack(theirs)[inside])


WARPS = {
    "ShearX": lambda image, m, **how: functional.affine(
        image, 0.0, [0, 0], 1.0, [math.degrees(math.atan(m * 0.3)), 0.0], center=[0, 0], **how
    ),
    "ShearY": lambda image, m, **how: functional.affine(
        image, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(m * 0.3))], center=[0, 0], **how
    ),
    "TranslateX": lambda image, m, **how: functional.affine(
        image, 0.0, [int(m * 150 / 331 * SIZE), 0], 1.0, [0.0, 0.0], **how
    ),
    "TranslateY": lambda image, m, **how: functional.affine(
        image, 0.0, [0, int(m * 150 / 331 * SIZE)], 1.0, [0.0, 0.0], **how
    ),
    "Rotate": lambda image, m, **how: functional.rotate(image, m * 30.0, **how),
}


@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [0.0, (10.0, 100.0, 200.0)])
def test_warps_are_torchvisions(images, name, interpolation, fill):
    magnitude, negative = np.array([0.07, 0.5, 1.0, 0.33]), np.array([False, True, False, True])
    layer = Strengths().layer(np.full(4, name), magnitude, negative, SIZE, interpolation, fill)
    mine = apply_layers(images.float(), [layer])
    how = {"interpolation": v2.InterpolationMode(interpolation), "fill": list(fill) if fill else None}
    theirs = torch.stack(
        [
            WARPS[name](image, -m if sign else m, **how)
            for image, m, sign in zip(images, magnitude, negative, strict=True)
        ]
    )
    difference = (mine - theirs.float()).abs()
    # A place half way between two pixels may round to either; bilinear with fill is another matter at the edge.
    assert (difference > 1).float().mean() < (0.08 if fill and interpolation == "bilinear" else 0.005)


def test_strengths_are_torchvisions():
    """The level of each operation at magnitude 1 and between, from torchvision's own tables."""
    half = 15 / 30
    for mine, theirs in ((Strengths(), v2.RandAugment), (TrivialAugmentWide._strengths, v2.TrivialAugmentWide)):
        for name, (levels, signed) in theirs._AUGMENTATION_SPACE.items():
            expected = levels(31, 224, 224)
            if expected is None:
                continue
            layer = mine.layer(np.full(2, name), np.array([half, 1.0]), np.array([False, signed]), 224, "nearest", 0.0)
            middle, end = float(expected[15]), float(expected[30]) * (-1 if signed else 1)
            given = {
                "ShearX": layer.values[:, 1],
                "ShearY": layer.values[:, 3],
                "TranslateX": -layer.values[:, 2],
                "TranslateY": -layer.values[:, 5],
                "Rotate": -np.degrees(np.arctan2(layer.values[:, 1], layer.values[:, 0])),
                "Posterize": layer.values[:, 0],
                "Solarize": layer.values[:, 0] / 255,
            }.get(name, layer.values[:, 0] - 1)
            wanted = [int(middle), int(end)] if name.startswith("Translate") else [middle, end]
            # Their 16 pixels are 15.999998, of which they take the whole number.
            assert given == pytest.approx(wanted, abs=1 if name.startswith("Translate") else 1e-5), name


def test_auto_augment_has_torchvisions_policy():
    from distcls.data.augmenting.auto_augment import _POLICY

    theirs = v2.AutoAugment()._policies
    assert [[(op, float(p), int(m)) for op, p, m in pair] for pair in _POLICY] == [
        [(op, p, m or 0) for op, p, m in pair] for pair in theirs
    ]
    assert AutoAugment().policy == "imagenet"
