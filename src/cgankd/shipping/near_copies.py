"""How near generated images are to training images: a count for the data card, and a picture of the nearest pairs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cgankd.core.files import replacing
from cgankd.core.progress import Progress
from cgankd.data.imageset import ImageSet
from cgankd.data.preview import grid
from cgankd.data.showing import picture
from cgankd.metrics import memorisation
from cgankd.metrics.distances import ROWS, nearest

PAIRS = 12
MOST = 10_000  # generated images that are compared; of more, so many are chosen evenly


@dataclasses.dataclass(frozen=True)
class NearCopies:
    """Distances are root mean squares over pixels, in grey levels (0 to 255).

    compared: how many generated images. near: how many of them are nearer to a training image than ``cutoff``; None
    where validation images give no cut-off. pairs: uint8 [P, 2, C, H, W], the nearest: generated image
    and training image. distances: float32 [P].
    """

    compared: int
    train: int
    held_out: int
    near: int | None
    cutoff: float | None
    expected: float | None
    median: float
    pairs: Tensor
    distances: Tensor


def near_copies(fakes: ImageSet, train: ImageSet, held_out: ImageSet, progress: Progress) -> NearCopies:
    """Compare generated images with the training images, in pixels.

    held_out: real images that nothing was trained on; a generated image counts as near where it is nearer to a
    training image than the nearest 1 % of these (metrics/memorisation.py).
    """
    some = torch.linspace(0, len(fakes) - 1, min(MOST, len(fakes))).round().to(torch.int64)
    scale = math.sqrt(fakes.images[0].numel())
    distances, places = [], []
    with progress.bar("nearest training images", len(some)) as bar:
        for rows in some.split(ROWS):
            distance, place = nearest(fakes.images[rows], train.images)
            distances.append(distance.squeeze(1) / scale)
            places.append(place.squeeze(1))
            bar.to(sum(map(len, distances)))
    distance, place = torch.cat(distances), torch.cat(places)
    enough = len(held_out) >= memorisation.FEWEST
    real = nearest(held_out.images, train.images)[0].squeeze(1) / scale if enough else torch.ones(memorisation.FEWEST)
    near = memorisation.nearness(distance, place, real)
    enough = enough and near.cutoff > 0  # 0: validation images themselves repeat training images
    chosen = memorisation.closest(near, PAIRS)
    return NearCopies(
        compared=len(some),
        train=len(train),
        held_out=len(held_out),
        near=round(near.share * len(some)) if enough else None,
        cutoff=near.cutoff if enough else None,
        expected=near.expected if enough else None,
        median=float(distance.median()),
        pairs=torch.stack([fakes.images[some[chosen]], train.images[place[chosen]]], dim=1),
        distances=distance[chosen],
    )


def write_pairs(near: NearCopies, path: Path) -> None:
    """A PNG of the pairs: the generated image left, its nearest training image right, their distance above."""
    columns = min(4, len(near.pairs))
    rows = math.ceil(len(near.pairs) / columns)
    figure = Figure(figsize=(2.1 * columns, 1.4 * rows), dpi=100, layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(near.pairs):
            pair = grid(near.pairs[place], torch.zeros(2, dtype=torch.int64), gap=1)
            axes.imshow(picture(pair), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(f"{float(near.distances[place]):.1f}", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
