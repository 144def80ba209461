"""Small .beton files, written by the real writer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distcls.data.augmenting.augment import RandomHorizontalFlip, RandomResizedCrop
from distcls.data.converting.convert import convert
from distcls.data.dataset import BetonDataset
from distcls.data.loader import TrainLoader


class Arrays:
    """A source of images that are in memory."""

    multi_label = False

    def __init__(self, images: list[np.ndarray], labels: list[int], classes: int = 10) -> None:
        self.images = images
        self.labels = labels
        self.class_names = [f"class {number}" for number in range(classes)]
        self.small = max(images[0].shape) <= 96

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], self.labels[index]

    def name_of(self, index: int) -> str:
        return f"array {index}"

    def pixels_of(self, index: int) -> int:
        return self.images[index].shape[0] * self.images[index].shape[1]

    def fingerprint(self, indices: list[int] | None = None) -> str:
        return f"made in memory {indices}"


def smooth(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An image that JPEG keeps nearly as it is."""
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(y / generator.uniform(4, 20) + generator.uniform(0, 6) + x / generator.uniform(4, 20)) for _ in "rgb"
    ]
    return (128 + 100 * np.stack(waves, 2)).astype(np.uint8)


def train_loader(dataset: BetonDataset, **changes: Any) -> TrainLoader:
    """Of images as `raw` has them, with the arguments that a test does not care for."""
    arguments: dict[str, Any] = {
        "resolution": 28,
        "transforms": [RandomResizedCrop(), RandomHorizontalFlip()],
        "global_batch_size": 24,
        "seed": 1,
        "workers": 2,
        "device": "cpu",
    }
    return TrainLoader(dataset, **(arguments | changes))


@pytest.fixture(scope="session")
def raw_images() -> np.ndarray:
    """(1000, 28, 28, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (1000, 28, 28, 3), np.uint8)


@pytest.fixture(scope="session")
def raw_beton(raw_images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 raw images; the label of image i is i % 10."""
    path = tmp_path_factory.mktemp("raw") / "raw.beton"
    convert(Arrays(list(raw_images), [i % 10 for i in range(1000)]), path, workers=2)
    return path


@pytest.fixture(scope="session")
def jpeg_images() -> list[np.ndarray]:
    """60 images of 40..119 pixels a side."""
    generator = np.random.default_rng(1)
    return [smooth(generator, *generator.integers(40, 120, 2)) for _ in range(60)]


@pytest.fixture(scope="session")
def jpeg_beton(jpeg_images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images, about half of them JPEG and half raw."""
    path = tmp_path_factory.mktemp("jpeg") / "jpeg.beton"
    source = Arrays(jpeg_images, [i % 3 for i in range(60)], classes=3)
    convert(source, path, write_mode="proportion", compress_probability=0.5, quality=95, workers=2)
    return path


@pytest.fixture(scope="session")
def raw(raw_beton: Path) -> BetonDataset:
    return BetonDataset(raw_beton)


@pytest.fixture(scope="session")
def mixed(jpeg_beton: Path) -> BetonDataset:
    return BetonDataset(jpeg_beton)


@pytest.fixture
def raw_copy(raw_beton: Path, tmp_path: Path) -> Path:
    """The raw images and their sidecar, for a test that damages them."""
    return _copied(raw_beton, tmp_path)


@pytest.fixture
def jpeg_copy(jpeg_beton: Path, tmp_path: Path) -> Path:
    """The same of the sixty images."""
    return _copied(jpeg_beton, tmp_path)


def _copied(beton: Path, folder: Path) -> Path:
    """In a folder of their own, which a test may take away."""
    (folder / "data").mkdir()
    for suffix in (".beton", ".json"):
        shutil.copy(beton.with_suffix(suffix), folder / f"data/copy{suffix}")
    return folder / "data/copy.beton"


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Five images with any number of four labels each; the last image is the first one again."""
    generator = np.random.default_rng(2)
    images = [smooth(generator, 20, 30) for _ in range(4)]
    hot = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.uint8)
    source = Arrays([*images, images[0]], list(hot), classes=4)
    source.multi_label = True
    convert(source, tmp_path / "several.beton", workers=1)
    return tmp_path / "several.beton"
