"""Images for the page: strips and tiles as base64 PNG, which the browser enlarges without smoothing."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from cgankd.data.showing import evenly
from cgankd.report.run import Array

LARGEST = 64  # pixels; larger images are reduced, because a page of photographs would have tens of megabytes


@dataclasses.dataclass(frozen=True)
class Strip:
    """Images side by side; ``share`` is the part of a full strip's width that they take."""

    source: str
    share: float


@dataclasses.dataclass(frozen=True)
class StripRow:
    """One label's strips, one for each column of the grid; None where there is no image."""

    label: str
    strips: tuple[Strip | None, ...]


@dataclasses.dataclass(frozen=True)
class Tile:
    """One image with a line of text under it."""

    source: str
    text: str


def picture(images: Array) -> str:
    """uint8 images [n, C, H, W] side by side as one data URI, with one-pixel gaps."""
    height, width = images.shape[2:]
    if max(height, width) > LARGEST:
        images = np.stack([_reduced(image) for image in images])
        height, width = images.shape[2:]
    channels = 3 if images.shape[1] == 3 else 1
    gap = np.zeros((height, 1, 4), dtype=np.uint8)  # transparent, so it has the page's colour
    parts: list[Array] = []
    for image in images[:, :channels]:
        colour = np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3))
        opaque = np.full((height, width, 1), 255, dtype=np.uint8)
        parts += [gap, np.concatenate([colour, opaque], axis=2)]
    pixels = np.concatenate(parts[1:], axis=1)
    row = Image.fromarray(pixels if len(images) > 1 else pixels[..., :3])
    if channels == 1:
        row = row.convert("LA" if len(images) > 1 else "L")
    file = io.BytesIO()
    row.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _reduced(image: Array) -> Array:
    channels, height, width = image.shape
    scale = LARGEST / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = [np.asarray(Image.fromarray(image[c]).resize(size, Image.Resampling.BOX)) for c in range(channels)]
    return np.stack(planes)


def strip(images: Array, columns: int) -> Strip | None:
    """At most ``columns`` of the images, evenly spread; None where there is none."""
    if len(images) == 0:
        return None
    chosen = images[evenly(len(images), columns)]
    return Strip(picture(chosen), len(chosen) / columns)
