"""The picture that ``cgankd data`` writes: a few images of each class or label bin, one row per bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from cgankd.core.files import replacing
from cgankd.core.terminal import on_one_line
from cgankd.report import fonts
from cgankd.report.figures import cut, plain

LONGEST = 30  # letters of a row's name


def sheet(examples: Mapping[str, Tensor], bins: Sequence[str], path: Path) -> list[int]:
    """Write a PNG of ``examples`` (images uint8 [N, C, H, W], bin int64 [N]), each row named after its bin.

    Returns the bins whose number stands in their name's place, because no installed font can show the name.
    """
    present = [number for number in range(len(bins)) if bool((examples["bin"] == number).any())]
    columns = max(int((examples["bin"] == number).sum()) for number in present)
    numbered = [number for number in present if not fonts.can_show(on_one_line(bins[number]))]
    figure = Figure(figsize=(1.6 + 0.9 * columns, 0.2 + 0.9 * len(present)), dpi=110, layout="constrained")
    axes = figure.subplots(len(present), columns, squeeze=False)
    for row, number in zip(axes, present, strict=True):
        images = examples["images"][examples["bin"] == number].permute(0, 2, 3, 1).numpy()
        name = f"no. {number}" if number in numbered else cut(on_one_line(bins[number]), LONGEST)
        row[0].set_ylabel(plain(name), rotation=0, ha="right", va="center", fontsize=9)
        for place, axis in enumerate(row):
            axis.set(xticks=[], yticks=[])
            for edge in axis.spines.values():
                edge.set_visible(False)
            if place < len(images):
                image = images[place]
                axis.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
    fonts.fit(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return numbered
