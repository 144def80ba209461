"""Image files without a data set, prepared as evaluation prepares the images of a .beton."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from distcls.data.augmenting.windows import Windows
from distcls.data.converting.image_files import ImageFiles, images_below
from distcls.data.errors import DataError


class SingleImages(ImageFiles):
    """Single files, and all images at any depth below folders, sorted by path.

    Args:
        paths: files and folders.
        resolution, crop_ratio, interpolation: as EvalLoader's.
        mean, std: per RGB channel on the scale 0..1.

    Raises:
        DataError: nothing there, or a folder without images.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        resolution: int,
        crop_ratio: float,
        interpolation: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(Path())
        self.resolution = resolution
        self.crop_ratio = crop_ratio
        self.interpolation = interpolation
        self.mean, self.std = list(mean), list(std)
        self.files = [(str(file), None) for path in paths for file in _files_of(path)]

    def prepared(self, index: int) -> torch.Tensor:
        """The centre of image `index`, resized and normalised: (3, R, R) float32.

        Raises:
            DataError: it cannot be read as an image.
        """
        pixels, _ = self[index]
        sides = np.array([pixels.shape[0]]), np.array([pixels.shape[1]])
        window = Windows.centred(*sides, self.resolution, self.crop_ratio)
        top, left, side = int(window.top[0]), int(window.left[0]), int(window.rows[0])
        image = self._resized(pixels[top : top + side, left : left + side].copy())
        return transforms.normalize(transforms.to_dtype(image, torch.float32, scale=True), self.mean, self.std)

    def _resized(self, pixels: np.ndarray) -> torch.Tensor:
        size = (self.resolution, self.resolution)
        if self.interpolation == "ffcv_area":
            import cv2  # what FFCV resizes with

            return torch.from_numpy(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)).permute(2, 0, 1)
        if self.interpolation == "bicubic":  # torchvision's is coarser on bytes, and overshoots otherwise on floats
            resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        return transforms.resize(image, list(size), InterpolationMode(self.interpolation), antialias=True)


def _files_of(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    files = sorted(images_below(path))
    if not files:
        raise DataError(f"{path}: holds no images")
    return files
