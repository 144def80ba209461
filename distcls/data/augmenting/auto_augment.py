"""RandAugment, TrivialAugmentWide and AutoAugment: random choices among operations."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.pixels import IDENTITY, Fill, Interpolation, Layer, PixelTransform
from distcls.data.augmenting.strengths import ENHANCE, WARPS, Strengths, TimmIncreasing
from distcls.errors import ArgumentError
from distcls.registry import TRANSFORMS

_COMMON = (*WARPS, *ENHANCE, "Posterize", "Solarize", "AutoContrast", "Equalize")
_SPACE = np.array([IDENTITY, *_COMMON])
_POLICIES = {
    "torchvision": (_SPACE, Strengths()),
    "timm_increasing": (np.array([*_COMMON, "SolarizeAdd", "Invert"]), TimmIncreasing()),
}


@TRANSFORMS.register
class RandAugment(PixelTransform):
    """Operations drawn from 14 or 15, all of one magnitude (Cubuk et al. 2019); torchvision's RandAugment, or timm's.

    timm's `rand-m6-mstd0.5-inc1` is policies timm_increasing, magnitude 6, num_magnitude_bins 11, mstd 0.5, p 0.5 and
    the interpolation of its `--train-interpolation`.

    Args:
        num_ops: operations on each image, one after the other.
        magnitude: their strength, from 0 to num_magnitude_bins - 1.
        num_magnitude_bins: the scale of `magnitude`.
        mstd: standard deviation of the magnitude, which is drawn for each operation.
        p: probability of each operation.
        interpolation: nearest, bilinear or bicubic, of shears, shifts and rotations.
        fill: what comes in from beyond the edge, on the scale 0..255.
        policies: whose operations and strengths. torchvision: 14, doing nothing among them. timm_increasing: timm's 15
            of ``-inc1``, with Invert and SolarizeAdd, which MMPretrain has by this name too.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9,
        num_magnitude_bins: int = 31,
        mstd: float = 0.0,
        p: float = 1.0,
        interpolation: Interpolation = "nearest",
        fill: Fill = 0.0,
        policies: Literal["torchvision", "timm_increasing"] = "torchvision",
    ) -> None:
        if num_ops < 0:
            raise ArgumentError("RandAugment.num_ops", f"got {num_ops}, expected 0 or more operations")
        _check_bins("RandAugment", num_magnitude_bins)
        if not 0 <= magnitude <= num_magnitude_bins - 1:
            raise ArgumentError(
                "RandAugment.magnitude",
                f"got {magnitude}, expected 0 to {num_magnitude_bins - 1}, num_magnitude_bins - 1",
            )
        if mstd < 0:
            raise ArgumentError("RandAugment.mstd", f"got {mstd}, expected 0 or more")
        if not 0 <= p <= 1:
            raise ArgumentError("RandAugment.p", f"got {p}, expected a probability between 0 and 1")
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.top = num_magnitude_bins - 1
        self.mstd = mstd
        self.p = p
        self.interpolation = interpolation
        self.fill = fill
        self.policies = policies

    def layers(self, draws: Draws, resolution: int) -> Sequence[Layer]:
        return [self._layer(draws, 5 * number, resolution) for number in range(self.num_ops)]

    def _layer(self, draws: Draws, counter: int, resolution: int) -> Layer:
        space, strengths = _POLICIES[self.policies]
        ops = space[draws.below(np.array(len(space)), counter)]
        magnitude = np.full(len(ops), float(self.magnitude))
        if self.mstd:
            magnitude = np.clip(magnitude + self.mstd * draws.normal(counter + 2), 0, self.top)
        if self.p < 1:
            ops = np.where(draws.uniform(counter + 4) < self.p, ops, IDENTITY)
        negative = draws.uniform(counter + 1) < 0.5
        return strengths.layer(ops, magnitude / self.top, negative, resolution, self.interpolation, self.fill)


@TRANSFORMS.register
class TrivialAugmentWide(PixelTransform):
    """One operation of 14, its magnitude drawn too (Mueller and Hutter 2021); torchvision's TrivialAugmentWide.

    Args:
        num_magnitude_bins: number of magnitudes.
        interpolation: nearest, bilinear or bicubic, of shears, shifts and rotations.
        fill: what comes in from beyond the edge, on the scale 0..255.
    """

    _strengths = Strengths(
        shear=0.99, translate_share=0.0, translate_pixels=32.0, rotate=135.0, enhance=0.99, posterize=6.0
    )

    def __init__(
        self, num_magnitude_bins: int = 31, interpolation: Interpolation = "nearest", fill: Fill = 0.0
    ) -> None:
        _check_bins("TrivialAugmentWide", num_magnitude_bins)
        self.top = num_magnitude_bins - 1
        self.interpolation = interpolation
        self.fill = fill

    def layers(self, draws: Draws, resolution: int) -> Sequence[Layer]:
        ops = _SPACE[draws.below(np.array(len(_SPACE)), 0)]
        magnitude = draws.below(np.array(self.top + 1), 1) / self.top
        negative = draws.uniform(2) < 0.5
        return [self._strengths.layer(ops, magnitude, negative, resolution, self.interpolation, self.fill)]


# (operation, probability, magnitude of 0..9), twice; the paper's table for ImageNet, as torchvision has it.
_IMAGENET = """
Posterize .4 8 Rotate .6 9; Solarize .6 5 AutoContrast .6 0; Equalize .8 0 Equalize .6 0; Posterize .6 7 Posterize .6 6;
Equalize .4 0 Solarize .2 4; Equalize .4 0 Rotate .8 8; Solarize .6 3 Equalize .6 0; Posterize .8 5 Equalize 1 0;
Rotate .2 3 Solarize .6 8; Equalize .6 0 Posterize .4 6; Rotate .8 8 Color .4 0; Rotate .4 9 Equalize .6 0;
Equalize 0 0 Equalize .8 0; Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8; Rotate .8 8 Color 1 2;
Color .8 8 Solarize .8 7; Sharpness .4 7 Invert .6 0; ShearX .6 5 Equalize 1 0; Color .4 0 Equalize .6 0;
Equalize .4 0 Solarize .2 4; Solarize .6 5 AutoContrast .6 0; Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8;
Equalize .8 0 Equalize .6 0
"""
_POLICY = np.array([entry.split() for entry in _IMAGENET.split(";")]).reshape(-1, 2, 3)


@TRANSFORMS.register
class AutoAugment(PixelTransform):
    """One of 25 pairs of operations found by search (Cubuk et al. 2018); torchvision's AutoAugment.

    Args:
        policy: the data set that it was searched on.
        interpolation: nearest, bilinear or bicubic, of shears and rotations.
        fill: what comes in from beyond the edge, on the scale 0..255.
    """

    def __init__(
        self,
        policy: Literal["imagenet"] = "imagenet",
        interpolation: Interpolation = "nearest",
        fill: Fill = 0.0,
    ) -> None:
        self.policy = policy
        self.interpolation = interpolation
        self.fill = fill

    def layers(self, draws: Draws, resolution: int) -> Sequence[Layer]:
        pairs = _POLICY[draws.below(np.array(len(_POLICY)), 0)]
        layers = []
        for place in (0, 1):
            op, p, magnitude = pairs[:, place].T
            op = np.where(draws.uniform(1 + 2 * place) < p.astype(float), op, IDENTITY)
            negative = draws.uniform(2 + 2 * place) < 0.5
            levels = magnitude.astype(float) / 9
            layers.append(Strengths().layer(op, levels, negative, resolution, self.interpolation, self.fill))
        return layers


def _check_bins(name: str, bins: int) -> None:
    if bins < 2:
        raise ArgumentError(f"{name}.num_magnitude_bins", f"got {bins}, expected 2 or more")
