"""ColorJitter and ThreeAugment: random changes of colour."""

from collections.abc import Sequence

import numpy as np

from distcls.data.augmenting.draws import Draws
from distcls.data.augmenting.pixels import IDENTITY, Layer, PixelTransform
from distcls.errors import ArgumentError
from distcls.registry import TRANSFORMS

Range = float | tuple[float, float]


@TRANSFORMS.register
class ColorJitter(PixelTransform):
    """Random brightness, contrast, saturation and hue, in random order; torchvision's ColorJitter.

    Args:
        brightness: the factor is drawn from [1 - brightness, 1 + brightness], not below 0, or from [smallest, largest].
        contrast: likewise.
        saturation: likewise.
        hue: the turn is drawn from [-hue, hue] or [smallest, largest]; at most 0.5, half of the colour circle.
    """

    def __init__(
        self, brightness: Range = 0.0, contrast: Range = 0.0, saturation: Range = 0.0, hue: Range = 0.0
    ) -> None:
        self.ranges = {
            "Brightness": _factors("brightness", brightness),
            "Contrast": _factors("contrast", contrast),
            "Color": _factors("saturation", saturation),
            "Hue": (-hue, hue) if isinstance(hue, int | float) else hue,
        }
        low, high = self.ranges["Hue"]
        if not -0.5 <= low <= high <= 0.5:
            raise ArgumentError("ColorJitter.hue", f"got {_shown(hue)}, expected 0 to 0.5, or two numbers in -0.5..0.5")

    def layers(self, draws: Draws, resolution: int, first_counter: int = 0) -> Sequence[Layer]:
        order = np.argsort(np.stack([draws.uniform(first_counter + k) for k in range(4)]), axis=0)
        idle = {"Hue": (0, 0)}
        names = np.array([IDENTITY if one == idle.get(name, (1, 1)) else name for name, one in self.ranges.items()])
        amounts = np.stack(
            [
                low + (high - low) * draws.uniform(first_counter + 4 + k)
                for k, (low, high) in enumerate(self.ranges.values())
            ]
        )
        return [
            amount_layer(names[choice], np.take_along_axis(amounts, choice[None], 0)[0])
            for choice in order
            if (names[choice] != IDENTITY).any()
        ]


@TRANSFORMS.register
class ThreeAugment(PixelTransform):
    """3-Augment of DeiT III (Touvron et al. 2022): gray, solarised or blurred, one of them at random; then ColorJitter.

    Args:
        color_jitter: range of brightness, contrast and saturation, see ColorJitter.
    """

    def __init__(self, color_jitter: float = 0.3) -> None:
        if color_jitter < 0:
            raise ArgumentError("ThreeAugment.color_jitter", f"got {color_jitter}, expected 0 or more")
        self.jitter = ColorJitter(color_jitter, color_jitter, color_jitter)

    def layers(self, draws: Draws, resolution: int) -> Sequence[Layer]:
        ops = np.array(["Gray", "Solarize", "GaussianBlur"])[draws.below(np.array(3), 0)]
        sigma = 0.1 + 1.9 * draws.uniform(1)
        one_of_three = amount_layer(ops, np.where(ops == "Solarize", 128.0, sigma))
        return [one_of_three, *self.jitter.layers(draws, resolution, first_counter=2)]


def amount_layer(ops: np.ndarray, amounts: np.ndarray) -> Layer:
    """Operations (n,) with one amount each (n,)."""
    values = np.zeros((len(ops), 6), np.float32)
    values[:, 0] = amounts
    return Layer(ops, values)


def _factors(name: str, given: Range) -> tuple[float, float]:
    low, high = (max(1 - given, 0.0), 1 + given) if isinstance(given, int | float) else given
    if not 0 <= low <= high:
        raise ArgumentError(
            f"ColorJitter.{name}", f"got {_shown(given)}, expected 0 or more, or two numbers from 0 upward"
        )
    return low, high


def _shown(given: Range) -> float | list[float]:
    return given if isinstance(given, int | float) else list(given)
