"""The plan of a batch: which images, their windows and targets, and what is left to do on the device."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from distcls.data.augmenting.windows import Windows
from distcls.data.beton.file_format import JPEG
from distcls.data.decoding.interpolation import Interpolation

# The last step on the device: (images (N, 3, R, R), target) -> the batch's images and target. May overwrite images.
Finish = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Plan:
    """The plan of a batch of N images.

    Attributes:
        indices: (N,) int64 into the data set; -1 for padding.
        target: (N,) int64, -1 for padding; for multi-label data (N, C) float32.
        windows: (N, 6) int32 of `Windows.packed`; one black pixel for padding.
        resolution: R of this batch, at most that of the slots.
        finish: see Finish; None: nothing.
        on_device: (N,) bool: which JPEGs the device decodes, as whole images; None: none. Only images whose window
            lies inside: the host blackens the part of a window that does not.
    """

    indices: np.ndarray
    target: np.ndarray
    windows: np.ndarray
    resolution: int
    finish: Finish | None = None
    on_device: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        samples: np.ndarray,
        indices: np.ndarray,
        windows: Windows,
        target: np.ndarray,
        interpolation: Interpolation,
        on_device: np.ndarray | None = None,
    ) -> "Plan":
        """Plan a batch of `samples` (N,), rows of the data set's table; any row where the index is -1.

        FFCV and programs that use Pillow decode at full size, and so do ffcv_area and bicubic, to give the same pixels:
        decoding a JPEG to half its size changes them as much as another filter does.
        """
        jpeg = samples["mode"] == JPEG
        on_device = None if on_device is None else on_device & jpeg & windows.inside & (indices >= 0)
        shrinkable = jpeg & (interpolation == "bilinear")
        packed = windows.packed(shrinkable if on_device is None else shrinkable & ~on_device)
        packed[indices < 0] = (0, 0, 1, 1, 0, 1)
        return cls(indices, target, packed, windows.resolution, on_device=on_device)
