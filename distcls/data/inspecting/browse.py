"""Images before and after augmentation: as stored, as trained on, and after each transform alone."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distcls.data.augmenting.mix import Mix
from distcls.data.augmenting.windows import OnDevice, Transform
from distcls.data.dataset import BetonDataset
from distcls.data.decoding.decode_cpu import decode_whole
from distcls.data.errors import DataError
from distcls.data.loader import TrainLoader

ALONE = 4  # images in the row of a single transform

# Builds a loader of the first images of each global batch, with the given transforms and mixes.
MakeLoader = Callable[[Sequence[Transform | OnDevice], Sequence[Mix]], TrainLoader]


@dataclass(frozen=True)
class Pair:
    """An image as stored (H, W, 3), as the loader delivers it (R, R, 3), both uint8, and its label."""

    stored: np.ndarray
    delivered: np.ndarray
    label: str


@dataclass(frozen=True)
class Row:
    title: str
    pairs: list[Pair]


def rows_of(
    make_loader: MakeLoader,
    transforms: Sequence[Transform | OnDevice],
    mixes: Sequence[Mix],
    titles: Sequence[str],
    *,
    epoch: int,
    images: int,
) -> list[Row]:
    """Rows for the first images of `epoch`: all transforms and mixes together, then each alone.

    A transform alone keeps its position in the list, so it draws the same random numbers as in training. A mix alone is
    always applied.

    Args:
        make_loader: builds the loader for each row.
        transforms, mixes: the recipe's, constructed.
        titles: of each transform, then of each mix.
        epoch: counted from 0.
        images: in the first row; the others have at most ALONE.

    Raises:
        DataError: an image is damaged.
    """
    rows = [("as trained on", list(transforms), list(mixes), images)]
    for place, transform in enumerate(transforms):
        alone = [transform if number == place else OnDevice() for number in range(len(transforms))]
        rows.append((titles[place], alone, [], min(images, ALONE)))
    for mix, title in zip(mixes, titles[len(transforms) :], strict=True):
        always = copy.copy(mix)
        always.p = None
        rows.append((title, [], [always], min(images, ALONE)))
    return [Row(title, _pairs(make_loader(some, those), epoch, number)) for title, some, those, number in rows]


def _pairs(loader: TrainLoader, epoch: int, images: int) -> list[Pair]:
    """The first `images` of the loader's first batch of `epoch`. Closes the loader."""
    dataset, step = loader.dataset, epoch * loader.steps_per_epoch
    try:
        with loader.stream(step, step + 1) as stream:
            batch = next(stream)
    finally:
        loader.close()
    delivered = denormalised(batch.images[:images], dataset.mean, dataset.std)
    labels = label_texts(dataset, batch.target[:images].cpu().numpy())
    pairs = []
    for number, index in enumerate(batch.index[:images].tolist()):
        stored = decode_whole(dataset.samples, index)
        if stored is None:
            raise DataError(f"{dataset.place_of(index)}: its JPEG data is damaged and cannot be decoded")
        pairs.append(Pair(stored, delivered[number], labels[number]))
    return pairs


def label_texts(dataset: BetonDataset, target: np.ndarray) -> list[str]:
    """Class names for (n,) class numbers or (n, C) weights; a weight other than 1 is given in percent."""
    if target.ndim == 1:
        return [dataset.class_names[label] for label in target]
    texts = []
    for weights in target:
        named = [(dataset.class_names[label], weights[label]) for label in np.argsort(-weights, kind="stable")]
        parts = [name if weight > 0.995 else f"{name} {weight:.0%}" for name, weight in named if weight > 0.005]
        texts.append(", ".join(parts) or "no class")
    return texts


def denormalised(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undo the normalisation: images (N, 3, R, R) -> (N, R, R, 3) uint8."""
    pixels = images.detach().cpu().float().permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def title_of(block: dict[str, Any]) -> str:
    """A recipe's block as one line, e.g. RandomCrop padding=4."""
    shown = ((key, list(value) if isinstance(value, tuple) else value) for key, value in block.items() if key != "type")
    return " ".join([block["type"], *(f"{key}={value}" for key, value in shown)])
