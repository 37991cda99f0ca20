"""The image that ``cgankd data`` writes: a few samples of each class or label bin, one row per bin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image
from torch import Tensor

from cgankd.core.files import replacing
from cgankd.core.terminal import on_one_line
from cgankd.report import fonts
from cgankd.report.run import Array
from cgankd.report.short_names import distinct

DPI = 110
GAP = 9  # pixels
CELL, SMALL_CELL = 99, 55  # pixels on a side, with the gap
MANY = 25  # rows; with more rows, cells are smaller and rows are in several panels
LONGEST = 30  # letters of a row's name


def sheet(examples: Mapping[str, Tensor], bins: Sequence[str], path: Path) -> list[int]:
    """Write a PNG of ``examples`` (images uint8 [N, C, H, W], bin int64 [N]), one row per bin with its name.

    Returns the bins that have a number in place of their name, because no installed font can show the name.
    """
    images, place = examples["images"].numpy(), examples["bin"].numpy()
    present = [number for number in range(len(bins)) if (place == number).any()]
    numbered = [number for number in present if not fonts.can_show(on_one_line(bins[number]))]
    full = [f"no. {n}" if n in numbered else on_one_line(bins[n]) for n in present]
    names = distinct(full, LONGEST) or full
    rows = [(name, images[place == number]) for name, number in zip(names, present, strict=True)]
    cell = CELL if len(rows) <= MANY else SMALL_CELL
    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    label = _widest(names, canvas) + 2 * GAP
    panel = label + cell * max(len(part) for _, part in rows)
    panels = 1 if len(rows) <= MANY else max(1, round(math.sqrt(len(rows) * cell / panel)))  # about a square
    rows_in_panel = math.ceil(len(rows) / panels)
    width, height = panels * panel, rows_in_panel * cell + GAP
    figure.set_size_inches((width + 0.1) / DPI, (height + 0.1) / DPI)  # + 0.1: no pixel is lost by rounding
    # All images are in one array, because one axis per image would take minutes for many classes.
    pixels = np.full((height, width, 3), 255, np.uint8)
    for number, (name, part) in enumerate(rows):
        left, top = number // rows_in_panel * panel + label, number % rows_in_panel * cell + GAP
        middle = top + (cell - GAP) / 2
        figure.text(
            (left - GAP) / width, 1 - middle / height, name, ha="right", va="center", fontproperties=_font(name),
            parse_math=False,
        )  # fmt: skip
        for image in part:
            _put(pixels[top : top + cell - GAP, left : left + cell - GAP], image)
            left += cell
    canvas.draw()
    text = np.asarray(canvas.buffer_rgba())[..., :3]  # only the names, black on white
    with replacing(path) as temporary:
        Image.fromarray(np.minimum(pixels, text)).save(temporary, format="PNG")
    return numbered


def _font(name: str) -> FontProperties:
    return FontProperties(family=fonts.families(name), size=9)


def _widest(names: Sequence[str], canvas: FigureCanvasAgg) -> int:
    """The width of the longest of the names in pixels."""
    renderer = canvas.get_renderer()
    return max(math.ceil(renderer.get_text_width_height_descent(name, _font(name), False)[0]) for name in names)


def _put(square: Array, image: Array) -> None:
    """Draw an image [C, H, W] in the centre of a square [S, S, 3], as large as possible."""
    side, (height, width) = len(square), image.shape[1:]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    drawn = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3))))
    drawn = drawn.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    square[top : top + size[1], left : left + size[0]] = np.asarray(drawn)
