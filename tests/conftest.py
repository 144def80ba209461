"""A small data set and a small recipe, for the tests that train: real .beton files, seconds of training on one core."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.engine import launching

CLASSES, TRAIN, VAL, SIZE = 5, 320, 103, 24

TINY_RECIPE = """\
output_dir: {out}
model:
  backbone: {{type: ResNet_CIFAR, depth: 18, stem_channels: 4, base_channels: 4, out_indices: [3]}}
  neck: {{type: GlobalAveragePooling}}
  head: {{type: LinearClsHead, num_classes: 5, loss: {{type: CrossEntropyLoss}}, topk: [1, 3]}}
data:
  train: {{path: {data}/train.beton}}
  val: {{path: {data}/val.beton, crop_ratio: 1.0}}
  resolution: 16
  workers: 1
  augment:
    - {{type: RandomResizedCrop, scale: [0.7, 1.0]}}
    - {{type: RandomHorizontalFlip}}
optimizer: {{type: SGD, lr: 0.2, weight_decay: 1.0e-3}}
schedule: {{type: CosineWarmup, warmup_steps: 3}}
train: {{epochs: 3, global_batch_size: 32, log_every_steps: 4, seed: 3}}
checkpoint: {{every_steps: 4}}
tracking: {{mode: disabled}}
"""


def stripes(generator: np.random.Generator, label: int) -> Image.Image:
    """An image whose class is the direction of its stripes."""
    angle = np.pi * label / CLASSES
    y, x = np.mgrid[:SIZE, :SIZE]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.9 + generator.uniform(0, 6))
    noise = generator.normal(0, 25, (SIZE, SIZE, 3))
    return Image.fromarray((127 + 90 * wave[..., None] + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    yield
    launching.end_all()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.beton (320 images) and val.beton (103), five classes of 24 x 24 pixels."""
    from distcls.data.converting.convert import convert
    from distcls.data.converting.sources import open_source

    folder = tmp_path_factory.mktemp("tiny")
    generator = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for number in range(count):
            label = number % CLASSES
            file = folder / split / f"class_{label}" / f"{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            stripes(generator, label).save(file)
        convert(open_source(folder / split), folder / f"{split}.beton", workers=1)
    return folder


@pytest.fixture
def tiny_recipe(tiny_data: Path, tmp_path: Path) -> Path:
    """A recipe on `tiny_data`: 30 steps, checkpoints every four, run folder ``tmp_path/run``."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY_RECIPE.format(out=tmp_path / "run", data=tiny_data))
    return file
