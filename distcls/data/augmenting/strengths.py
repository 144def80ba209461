"""How strong a magnitude makes each operation: torchvision's scale, and timm's."""

from dataclasses import dataclass

import numpy as np

from distcls.data.augmenting.pixel_ops import WARP
from distcls.data.augmenting.pixels import Fill, Interpolation, Layer

ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
WARPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


@dataclass(frozen=True)
class Strengths:
    """What a magnitude of 1 means: a tangent, pixels, degrees, a change of a factor, bits taken away, levels added."""

    shear: float = 0.3
    translate_share: float = 150 / 331
    translate_pixels: float = 0.0
    rotate: float = 30.0
    enhance: float = 0.9
    posterize: float = 4.0
    solarize_add: float = 110.0

    def shift(self, signed: np.ndarray, resolution: int) -> np.ndarray:
        """Pixels, from magnitudes (n,) with signs."""
        return np.trunc(signed * (self.translate_share * resolution + self.translate_pixels))

    def bits(self, magnitude: np.ndarray) -> np.ndarray:
        """That Posterize keeps."""
        return np.rint(8 - magnitude * self.posterize)

    def threshold(self, magnitude: np.ndarray) -> np.ndarray:
        """The level from which on Solarize inverts."""
        return 255 * (1 - magnitude)

    def layer(
        self,
        ops: np.ndarray,
        magnitude: np.ndarray,
        negative: np.ndarray,
        resolution: int,
        interpolation: Interpolation,
        fill: Fill,
    ) -> Layer:
        """Operations (n,) by their names in a policy, with magnitudes (n,) in 0..1 and signs -> the layer."""
        signed = np.where(negative, -magnitude, magnitude)
        values = np.tile(np.array([1, 0, 0, 0, 1, 0], float), (len(ops), 1))
        # A shear leaves the first row or column in its place.
        shear, half = signed * self.shear, resolution / 2
        shift = -self.shift(signed, resolution)
        angle = -np.radians(signed * self.rotate)
        for op, columns in {
            "ShearX": {1: shear, 2: shear * half},
            "ShearY": {3: shear, 5: shear * half},
            "TranslateX": {2: shift},
            "TranslateY": {5: shift},
            "Rotate": {0: np.cos(angle), 1: np.sin(angle), 3: -np.sin(angle), 4: np.cos(angle)},
            **{name: {0: 1 + signed * self.enhance} for name in ENHANCE},
            "Posterize": {0: self.bits(magnitude)},
            "Solarize": {0: self.threshold(magnitude)},
            "SolarizeAdd": {0: np.trunc(magnitude * self.solarize_add)},
        }.items():
            which = ops == op
            for column, value in columns.items():
                values[which, column] = value[which]
        return Layer(np.where(np.isin(ops, WARPS), WARP, ops), values.astype(np.float32), interpolation, fill)


class TimmIncreasing(Strengths):
    """timm's scale of ``-inc1``: shifts by parts of a pixel, Posterize down to no bit, whole levels."""

    def shift(self, signed: np.ndarray, resolution: int) -> np.ndarray:
        return signed * (0.45 * resolution)

    def bits(self, magnitude: np.ndarray) -> np.ndarray:
        return 4 - np.trunc(magnitude * 4)

    def threshold(self, magnitude: np.ndarray) -> np.ndarray:
        return 256 - np.trunc(magnitude * 256)
