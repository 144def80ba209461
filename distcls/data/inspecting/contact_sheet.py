"""Draws rows of images as one picture or as a self-contained HTML file."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from distcls.data.inspecting.browse import Pair, Row

_MARGIN, _LINE, _COLUMNS = 8, 14, 4


def picture(rows: Sequence[Row], cell: int = 160) -> Image.Image:
    """Draw rows: a title, then up to four pairs per line, each with the stored and the delivered image and the label.

    Args:
        rows: what to show.
        cell: side of an image in pixels.
    """
    columns = min(_COLUMNS, max(len(row.pairs) for row in rows))
    pair_width, pair_height = 2 * cell + _MARGIN, cell + _LINE + _MARGIN
    width = columns * (pair_width + _MARGIN) + _MARGIN
    heights = [_LINE + _MARGIN + -(-len(row.pairs) // columns) * pair_height for row in rows]
    sheet = Image.new("RGB", (width, sum(heights) + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        draw.rectangle((0, top - 2, width, top + _LINE), fill="#e8e8e8")
        draw.text((_MARGIN, top), _shortened(draw, row.title, width - 2 * _MARGIN), fill="black")
        for number, pair in enumerate(row.pairs):
            line, column = divmod(number, columns)
            left = _MARGIN + column * (pair_width + _MARGIN)
            _paste(sheet, draw, pair, left, top + _LINE + _MARGIN + line * pair_height, cell)
        top += height
    return sheet


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, pair: Pair, left: int, top: int, cell: int) -> None:
    for place, pixels in enumerate((pair.stored, pair.delivered)):
        image = _fitted(pixels, cell)
        sheet.paste(image, (left + place * cell + (cell - image.width) // 2, top + (cell - image.height) // 2))
    draw.text((left, top + cell + 1), _shortened(draw, pair.label, 2 * cell + _MARGIN), fill="black")


def _fitted(pixels: np.ndarray, cell: int) -> Image.Image:
    """Scale to the cell size; small images are enlarged without smoothing, so that their pixels stay visible."""
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


_PAGE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 1.5em; }}
section {{ display: flex; flex-wrap: wrap; gap: 1em; }}
h2 {{ font-size: 15px; background: #e8e8e8; padding: .3em .5em; overflow-wrap: anywhere; }}
figure {{ margin: 0; width: 328px; }}
figcaption {{ overflow-wrap: anywhere; }}
img {{ width: 160px; height: 160px; object-fit: contain; image-rendering: pixelated; }}
</style>
<h1>{title}</h1>
<p>Left: as stored. Right: as the loader delivers it.</p>
{rows}
</html>
"""


def page(rows: Sequence[Row], title: str) -> str:
    """A self-contained HTML file."""
    parts = []
    for row in rows:
        figures = "\n".join(_figure(pair) for pair in row.pairs)
        parts.append(f"<h2>{html.escape(row.title)}</h2>\n<section>\n{figures}\n</section>")
    return _PAGE.format(title=html.escape(title), rows="\n".join(parts))


def _figure(pair: Pair) -> str:
    images = f"{_img(pair.stored)} {_img(pair.delivered)}"
    return f"<figure>{images}<figcaption>{html.escape(pair.label)}</figcaption></figure>"


def _img(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((320, 320))
    data = io.BytesIO()
    image.save(data, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
