"""Synthetic images for benchmarks."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image


class MadeUp:
    """Noise with about the spectrum of photographs (amplitude ~ frequency**-1.5), so that JPEG sizes are realistic."""

    multi_label = False

    def __init__(self, number: int, height: int, width: int, *, small: bool) -> None:
        self.class_names = [str(label) for label in range(10)]
        self.small = small
        self._shape = (number, height, width)

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        _, height, width = self._shape
        generator = np.random.default_rng(index)
        noise = generator.standard_normal((height, width, 1)) + 0.2 * generator.standard_normal((height, width, 3))
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
        frequency[0, 0] = 1
        image = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) / frequency[:, :, None] ** 1.5, axes=(0, 1)).real
        image = 128 + 50 * image / image.std()
        return image.clip(0, 255).astype(np.uint8), index % 10

    def name_of(self, index: int) -> str:
        return f"image {index}"

    def pixels_of(self, index: int) -> int:
        return self._shape[1] * self._shape[2]

    def fingerprint(self, indices: list[int] | None = None) -> str:
        return "made up"

    def save_jpegs(self, folder: Path) -> None:
        """Write the images as JPEGs of quality 90, in one folder per class."""
        for name in self.class_names:
            (folder / name).mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(self._save_jpeg, [folder] * len(self), range(len(self)), chunksize=16))

    def _save_jpeg(self, folder: Path, index: int) -> None:
        image, label = self[index]
        Image.fromarray(image).save(folder / self.class_names[label] / f"{index:06}.jpg", quality=90)
