"""A contact sheet: images as they are stored beside what training makes of them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from distcls.data.dataset import BetonDataset
from distcls.data.errors import DataError
from distcls.data.loader import TrainLoader
from distcls.data.scan import decode_whole

_MARGIN, _LINE, _COLUMNS = 8, 14, 4


def contact_sheet(loader: TrainLoader, dataset: BetonDataset, first_step: int = 0, cell: int = 160) -> Image.Image:
    """The loader's global step `first_step`: each image as stored, what the loader delivers, and its label.

    Args:
        loader: with one rank; its batches are normalised by the data set's mean and std.
        dataset: the loader's.
        first_step: which batch.
        cell: side of an image on the sheet in pixels.

    Raises:
        DataError: an image is damaged.
    """
    with loader.stream(first_step, first_step + 1) as stream:
        batch = next(stream)
    delivered = denormalised(batch.images, dataset.mean, dataset.std)
    pairs = []
    for number, index in enumerate(batch.index.tolist()):
        stored = decode_whole(dataset.samples, index)
        if stored is None:
            raise DataError(f"{dataset.place_of(index)}: its JPEG data is damaged and cannot be decoded")
        pairs.append((stored, delivered[number], dataset.class_names[int(dataset.samples["label"][index])]))
    return _sheet(pairs, cell)


def denormalised(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised images (N, 3, R, R) -> (N, R, R, 3) uint8."""
    pixels = images.detach().cpu().float().permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _sheet(pairs: list[tuple[np.ndarray, np.ndarray, str]], cell: int) -> Image.Image:
    """Columns of pairs; in each the stored image left, the delivered one right and the label below."""
    columns = min(_COLUMNS, len(pairs))
    width, height = 2 * cell + _MARGIN, cell + _LINE + _MARGIN
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (width + _MARGIN) + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (stored, delivered, label) in enumerate(pairs):
        row, column = divmod(number, columns)
        left, top = _MARGIN + column * (width + _MARGIN), _MARGIN + row * height
        for place, pixels in enumerate((stored, delivered)):
            image = _fitted(pixels, cell)
            sheet.paste(image, (left + place * cell + (cell - image.width) // 2, top + (cell - image.height) // 2))
        draw.text((left, top + cell + 1), _shortened(draw, label, width), fill="black")
    return sheet


def _fitted(pixels: np.ndarray, cell: int) -> Image.Image:
    """As large as the cell allows; enlarged without smoothing, so that the pixels of small images are seen."""
    image = Image.fromarray(pixels)
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC)


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
