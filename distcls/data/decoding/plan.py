"""What a batch is to hold: which images, their windows and targets, and what is left to do on the device."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from distcls.data.augmenting.windows import Windows
from distcls.data.beton.file_format import JPEG
from distcls.data.decoding.interpolation import Interpolation

# What is left to do on the device: images (N, 3, R, R), which it may overwrite, and target -> those of the batch.
Finish = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Plan:
    """What a batch of N is to hold.

    Attributes:
        indices: (N,) int64 into the data set; -1 for padding.
        target: (N,) int64, -1 for padding; of a multi-label set (N, C) float32.
        windows: (N, 6) int32 of `Windows.packed`; one black pixel for padding.
        resolution: R of the batch, at most the slots'.
        finish: see Finish; None: nothing.
        on_device: (N,) bool: which JPEGs the device decodes, whole; None: none. Their windows lie inside: where one
            reaches beyond its image, the host makes it black there.
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
        """For `samples` (N,), rows of the data set's table; where an index is -1 any row.

        FFCV and Pillow's users decode at full size, whatever becomes of it: so do ffcv_area and bicubic, to give the
        same pixels. A JPEG decoded to half its size differs by as much as the filters do from each other.
        """
        jpeg = samples["mode"] == JPEG
        on_device = None if on_device is None else on_device & jpeg & windows.inside & (indices >= 0)
        shrinkable = jpeg & (interpolation == "bilinear")
        packed = windows.packed(shrinkable if on_device is None else shrinkable & ~on_device)
        packed[indices < 0] = (0, 0, 1, 1, 0, 1)
        return cls(indices, target, packed, windows.resolution, on_device=on_device)
