"""Images as pictures, and how a notebook shows them: a small grid of samples with labels, as HTML or as one PNG."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

MOST = 24  # images in a grid
SIDE = 64  # pixels on the screen; larger images are reduced, smaller ones enlarged without smoothing
GAP = 4


def evenly(total: int, most: int = MOST) -> list[int]:
    """At most ``most`` of ``total`` rows, evenly spread, so that no image is chosen by its look.

    >>> evenly(9, 3), evenly(2, 3), evenly(0, 3)
    ([0, 4, 8], [0, 1], [])
    """
    return sorted({round(place) for place in np.linspace(0, total - 1, min(total, most))}) if total else []


def picture(image: Tensor | npt.NDArray[np.uint8]) -> Image.Image:
    """uint8 [C, H, W] as a picture: grey, RGB or RGBA for 1, 3 or 4 channels."""
    pixels = np.ascontiguousarray(np.moveaxis(np.asarray(image), 0, 2))
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def tile(image: Tensor) -> Image.Image:
    """uint8 [C, H, W] as a picture whose longer side has ``SIDE`` pixels."""
    shown = picture(image)
    scale = SIDE / max(shown.size)
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    return shown.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def grid_html(images: Tensor, texts: Sequence[str], title: str) -> str:
    """Images uint8 [N, C, H, W] with a text under each, below a line ``title``."""
    figures = "".join(
        f'<figure style="margin:0;text-align:center"><img src="data:image/png;base64,{_base64(image)}" alt="">'
        f'<figcaption style="font-size:small">{html.escape(text)}</figcaption></figure>'
        for image, text in zip(images, texts, strict=True)
    )
    grid = f'<div style="display:flex;flex-wrap:wrap;gap:{GAP}px;max-width:{12 * (SIDE + GAP)}px">{figures}</div>'
    return f"<div><p>{html.escape(title)}</p>{grid}</div>"


def grid_png(images: Tensor) -> bytes:
    """The same images in rows, without texts, as the bytes of a PNG file; one grey pixel where there is none."""
    columns = max(1, min(12, math.ceil(math.sqrt(2 * len(images)))))
    rows = max(1, math.ceil(len(images) / columns))
    grid = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), "white")
    for number, image in enumerate(images):
        grid.paste(tile(image), (number % columns * (SIDE + GAP), number // columns * (SIDE + GAP)))
    return _png(grid)


def _base64(image: Tensor) -> str:
    return base64.b64encode(_png(tile(image))).decode("ascii")


def _png(shown: Image.Image) -> bytes:
    file = io.BytesIO()
    shown.save(file, format="PNG", optimize=True)
    return file.getvalue()
