"""The picture that ``cgankd data`` writes: a few images of each class or label bin, one row per bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from cgankd.core.files import replacing


def sheet(examples: Mapping[str, Tensor], bins: Sequence[str], path: Path) -> None:
    """Write a PNG of ``examples`` (images uint8 [N, C, H, W], bin int64 [N]), each row named after its bin."""
    present = [number for number in range(len(bins)) if bool((examples["bin"] == number).any())]
    columns = max(int((examples["bin"] == number).sum()) for number in present)
    figure = Figure(figsize=(1.6 + 0.9 * columns, 0.2 + 0.9 * len(present)), dpi=110, layout="constrained")
    axes = figure.subplots(len(present), columns, squeeze=False)
    for row, number in zip(axes, present, strict=True):
        images = examples["images"][examples["bin"] == number].permute(0, 2, 3, 1).numpy()
        row[0].set_ylabel(bins[number], rotation=0, ha="right", va="center", fontsize=9)
        for place, axis in enumerate(row):
            axis.set(xticks=[], yticks=[])
            for edge in axis.spines.values():
                edge.set_visible(False)
            if place < len(images):
                image = images[place]
                axis.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
