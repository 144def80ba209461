"""Draws the confusion matrix as a picture, for W&B and papers; the report draws its own, interactive one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 1000  # pixels of the matrix, at most
CELLS = 250  # along a side; more classes share cells, so that single mistakes remain visible
NAMED = 40  # classes; more have no names along the edges
COUNTED = 16  # classes; more have no numbers in the cells
LISTED = 24  # confused pairs beside the matrix
INK, MUTED, LINE = "#171a1f", "#616975", "#e3e6ea"
RIGHT, WRONG = np.array([42, 111, 219]), np.array([217, 72, 15])  # the report's blue and orange
MARGIN, LIST = 24, 430


def draw_confusion(classes: Mapping[str, Sequence[Any]], pairs: Sequence[Sequence[int]]) -> Image.Image:
    """Rows are labels, columns predictions; the darker a cell, the larger its share of the row.

    Args:
        classes: the columns `name`, `images` (of the class) and `right` (of them).
        pairs: [class, predicted as, images], the most frequent first.
    """
    names, total = list(classes["name"]), len(classes["name"])
    block = -(-total // CELLS)  # classes per cell
    cells = -(-total // block)
    cell = max(1, min(64, SIDE // cells))
    named = total <= NAMED
    text, small = ImageFont.load_default(15), ImageFont.load_default(min(14, max(9, cell - 4)))
    left = MARGIN + 26 + (min(170, max(int(small.getlength(name)) for name in names)) + 8 if named else 0)
    top = MARGIN + 62
    side = cell * cells
    below = (left - MARGIN if named else 0) + 34
    rows = min(LISTED, len(pairs))
    picture = Image.new(
        "RGB", (left + side + 36 + LIST + MARGIN, max(top + side + below, top + 34 + 34 * rows + MARGIN)), "white"
    )
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), "Confusion matrix", INK, font=ImageFont.load_default(24))
    draw.text(
        (left, top - 24),
        "row: the label    column: predicted as" + (f"    {block} classes a cell" if block > 1 else ""),
        MUTED,
        font=text,
    )
    picture.paste(_matrix(classes, pairs, block, cells).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=LINE)
    if named:
        _name_edges(picture, names, left, top, cell, small)
    if total <= COUNTED:
        _number_cells(draw, classes, pairs, left, top, cell, small)
    _list_pairs(draw, names, classes["images"], pairs[:LISTED], left + side + 36, top, text)
    return picture


def _matrix(
    classes: Mapping[str, Sequence[Any]], pairs: Sequence[Sequence[int]], block: int, cells: int
) -> Image.Image:
    """One pixel per cell, which shows the largest share of its classes."""
    images = np.maximum(np.array(classes["images"]), 1)
    shares = np.zeros((2, cells, cells))  # right, wrong
    each = np.arange(len(images))
    np.maximum.at(shares[0], (each // block, each // block), np.array(classes["right"]) / images)
    if len(pairs):
        label, best, times = np.array(pairs).T
        np.maximum.at(shares[1], (label // block, best // block), times / images[label])
    # The square root, and darkest from half the row on, so that one mistake in fifty is visible beside the diagonal.
    right, wrong = np.sqrt((shares * [[[1]], [[2]]]).clip(max=1))[..., None]
    pixels = 255 - np.where(wrong > right, wrong * (255 - WRONG), right * (255 - RIGHT))
    return Image.fromarray(pixels.round().astype(np.uint8))


def _name_edges(picture: Image.Image, names: list[str], left: int, top: int, cell: int, font: Any) -> None:
    draw = ImageDraw.Draw(picture)
    side = cell * len(names)
    for number, name in enumerate(names):
        short = _shortened(name, 170, font)
        middle = number * cell + cell // 2
        draw.text((left - 8, top + middle), short, INK, font=font, anchor="rm")
        upright = Image.new("RGB", (int(font.getlength(short)) + 2, 20), "white")
        ImageDraw.Draw(upright).text((upright.width, 10), short, INK, font=font, anchor="rm")
        picture.paste(upright.rotate(90, expand=True), (left + middle - 10, top + side + 8))


def _number_cells(
    draw: ImageDraw.ImageDraw,
    classes: Mapping[str, Sequence[Any]],
    pairs: Sequence[Sequence[int]],
    left: int,
    top: int,
    cell: int,
    font: Any,
) -> None:
    diagonal = [[number, number, right] for number, right in enumerate(classes["right"]) if right]
    for label, best, times in [*diagonal, *pairs]:
        dark = times / max(classes["images"][label], 1) > 0.3
        place = left + best * cell + cell // 2, top + label * cell + cell // 2
        draw.text(place, f"{times:,}", "white" if dark else INK, font=font, anchor="mm")


def _list_pairs(
    draw: ImageDraw.ImageDraw,
    names: list[str],
    images: Sequence[int],
    pairs: Sequence[Sequence[int]],
    left: int,
    top: int,
    font: Any,
) -> None:
    title = "Most confused: label, taken for, images" if pairs else "No image was confused"
    draw.text((left, top), title, INK, font=font)
    for number, (label, best, times) in enumerate(pairs):
        y = top + 34 + 34 * number
        width = round((LIST - 60) * times / pairs[0][2])
        draw.rectangle((left, y + 20, left + width, y + 23), fill=tuple(WRONG))
        arrow, count = f"{names[label]} > {names[best]}", f"{times:,} of {images[label]:,}"
        draw.text((left, y), _shortened(arrow, LIST - 24 - int(font.getlength(count)), font), INK, font=font)
        draw.text((left + LIST - 8, y), count, MUTED, font=font, anchor="ra")


def _shortened(text: str, width: int, font: Any) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
