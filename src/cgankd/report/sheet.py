"""The picture that ``cgankd data`` writes: a few images of each class or label bin, one row per bin."""

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
from cgankd.report.run import Array

DPI = 110
GAP = 9  # pixels
CELL, SMALL_CELL = 99, 55  # pixels on a side, with the gap
MANY = 25  # rows; more stand in smaller cells and several panels
FONT = FontProperties(size=9)


def sheet(examples: Mapping[str, Tensor], bins: Sequence[str], path: Path) -> None:
    """Write a PNG of ``examples`` (images uint8 [N, C, H, W], bin int64 [N]), each row named after its bin."""
    images, place = examples["images"].numpy(), examples["bin"].numpy()
    rows = [(bins[number], images[place == number]) for number in range(len(bins)) if (place == number).any()]
    cell = CELL if len(rows) <= MANY else SMALL_CELL
    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    label = _widest([name for name, _ in rows], canvas) + 2 * GAP
    panel = label + cell * max(len(part) for _, part in rows)
    panels = 1 if len(rows) <= MANY else max(1, round(math.sqrt(len(rows) * cell / panel)))  # about a square
    rows_in_panel = math.ceil(len(rows) / panels)
    width, height = panels * panel, rows_in_panel * cell + GAP
    figure.set_size_inches((width + 0.1) / DPI, (height + 0.1) / DPI)  # whole pixels, whatever the division leaves
    # All images in one array: an axis for each image would take minutes where there are many classes.
    pixels = np.full((height, width, 3), 255, np.uint8)
    for number, (name, part) in enumerate(rows):
        left, top = number // rows_in_panel * panel + label, number % rows_in_panel * cell + GAP
        for image in part:
            _put(pixels[top : top + cell - GAP, left : left + cell - GAP], image)
            left += cell
        left, middle = left - len(part) * cell - GAP, top + (cell - GAP) / 2
        figure.text(
            left / width, 1 - middle / height, name, ha="right", va="center", fontproperties=FONT, parse_math=False
        )
    canvas.draw()
    text = np.asarray(canvas.buffer_rgba())[..., :3]  # the names alone, black on white
    with replacing(path) as temporary:
        Image.fromarray(np.minimum(pixels, text)).save(temporary, format="PNG")


def _widest(names: Sequence[str], canvas: FigureCanvasAgg) -> int:
    """The width of the longest of the names in pixels."""
    renderer = canvas.get_renderer()
    return max(math.ceil(renderer.get_text_width_height_descent(name, FONT, False)[0]) for name in names)


def _put(square: Array, image: Array) -> None:
    """Draw an image [C, H, W] in the middle of a square [S, S, 3], as large as it fits."""
    side, (height, width) = len(square), image.shape[1:]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    drawn = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3))))
    drawn = drawn.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    square[top : top + size[1], left : left + size[0]] = np.asarray(drawn)
