"""RandAugment with `policies: timm_increasing` against timm's own classes, which work on Pillow's images."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import AugmentOp, rand_augment_transform

from distcls.data.augmenting.auto_augment import RandAugment
from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.pixels import apply_layers
from distcls.data.augmenting.strengths import ENHANCE, TimmIncreasing

FILL = (124, 116, 104)
THEIRS = {name: f"{name}Increasing" for name in (*ENHANCE, "Posterize", "Solarize")}
THEIRS |= {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}
OPS = [*THEIRS, "ShearX", "ShearY", "Rotate", "SolarizeAdd", "AutoContrast", "Equalize", "Invert"]


def picture(size):
    """Smooth, as photographs are, with some noise; (3, size, size) uint8."""
    generator = np.random.default_rng(2)
    ramp = np.add.outer(np.arange(size), 2 * np.arange(size)) / (3 * size)
    waves = [
        60 + 120 * (0.5 + 0.5 * np.sin(5 * ramp + phase)) + generator.normal(0, 6, (size, size)) for phase in range(3)
    ]
    return torch.from_numpy(np.stack(waves).clip(0, 255).astype(np.uint8))


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture(autouse=True)
def no_bits(monkeypatch):
    """Pillow refuses Posterize to 0 bits by now, which timm asks for at level 10; once it gave black."""
    posterize = ImageOps.posterize
    monkeypatch.setattr(
        ImageOps, "posterize", lambda image, bits: posterize(image, bits) if bits else image.point(lambda _: 0)
    )


@pytest.mark.parametrize("name", OPS)
def test_an_operation_is_timms_at_any_level(name, monkeypatch):
    image, size = picture(24), 24
    levels = np.array([0.0, 0.4, 2.5, 4.9, 7.0, 9.0, 9.6, 10.0])
    for negative in (False, True):
        monkeypatch.setattr(random, "random", lambda negative=negative: 0.9 if negative else 0.1)
        signs = np.full(
            len(levels), negative != name.startswith("Translate")
        )  # their shift is of the place, not of the image
        layer = TimmIncreasing().layer(np.full(len(levels), name), levels / 10, signs, size, "bicubic", FILL)
        ours = apply_layers(image.float().expand(len(levels), -1, -1, -1).clone(), [layer])
        hparams = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
        for one, level in zip(ours, levels, strict=True):
            operation = AugmentOp(THEIRS.get(name, name), prob=1.0, magnitude=level, hparams=hparams)
            theirs = tensor(operation(pillow(image))).float()
            # a level more or less where Pillow rounds elsewhere; a pixel on the edge of the image may be in or out
            assert ((one - theirs).abs() > 1).float().mean() < 0.004, level
            assert (one - theirs).mean().abs() < 1, level


@pytest.mark.parametrize("magnitude", [6, 9])
def test_images_have_timms_distribution(magnitude):
    """Means and spreads of several figures of the image, and of single pixels, over many draws."""
    number, size = 3000, 16
    image, fill = picture(size), tuple(float(one) for one in FILL)
    mine = RandAugment(
        2, magnitude, 11, mstd=0.5, p=0.5, interpolation="bicubic", fill=fill, policies="timm_increasing"
    )
    layers = mine.layers(Draws(0, 0, np.arange(number), 0), size)
    ours = apply_layers(image.float().expand(number, -1, -1, -1).clone(), layers)
    random.seed(magnitude)
    np.random.seed(magnitude)
    theirs = rand_augment_transform(
        f"rand-m{magnitude}-mstd0.5-inc1", {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    )
    source = pillow(image)
    reference = torch.stack([tensor(theirs(source)) for _ in range(number)]).float()
    figures = {
        "mean": lambda x: x.mean((1, 2, 3)),
        "red": lambda x: x[:, 0].mean((1, 2)),
        "contrast": lambda x: x.std((1, 2, 3)),
        "pixel": lambda x: x[:, 2, 4, 11],
        "upper row": lambda x: x[:, :, 0].mean((1, 2)),
        "left column": lambda x: x[:, :, :, 0].mean((1, 2)),
        "unchanged": lambda x: (x == image).all(3).all(2).all(1).float(),
        "black": lambda x: (x == 0).float().mean((1, 2, 3)),
    }
    for name, figure in figures.items():
        a, b = figure(ours), figure(reference)
        error = ((a.var() + b.var()) / number).sqrt()
        assert abs(a.mean() - b.mean()) < 4.5 * error + 0.05, name
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.12, abs=0.02), name


def test_each_of_timms_operations_is_as_frequent():
    mine = RandAugment(1, 9, 11, mstd=0.5, p=0.5, policies="timm_increasing")
    [layer] = mine.layers(Draws(0, 0, np.arange(30_000), 0), 16)
    found = Counter(layer.ops.tolist())
    assert found.pop("Identity") == pytest.approx(15_000, abs=400)
    assert found.pop("Warp") == pytest.approx(5_000, abs=300)
    assert sorted(found) == sorted(set(OPS) - {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"})
    assert all(number == pytest.approx(1_000, abs=150) for number in found.values())
