"""The page's section on students with attention (VAM): which blocks of filters matter for which label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cgankd.report import table
from cgankd.report.blocks import Block, Note, Section, drawn
from cgankd.report.figures import LIGHT, MOST_BINS, TEXT, canvas, name_bins, plain
from cgankd.report.run import Array, Run

FILE = "attention.safetensors"
DARKEST = 0.6  # opacity of a cell with all the attention; its number stays readable on light and dark pages
GAP = 0.5  # between two layers, in cells


def attention(run: Run) -> Section | None:
    """A heat map for each row whose student has attention; None where no row's has."""
    blocks: list[Block] = []
    for row in run.results["rows"]:
        method = str(row["method"])
        artifact = run.artifact("students", method)
        stages = (artifact.summary.get("attention") or {}).get("stages") if artifact else None
        if artifact is None or not stages:
            continue
        mean, images, decided = (artifact.tensor(FILE, name) for name in ("mean", "images", "decided"))
        if mean is None or images is None or decided is None or len(mean) != len(run.bins):
            continue
        by_layer = ", ".join(f"{100 * share:.0f} % at {stage}" for stage, share in zip(stages, decided, strict=True))
        labels, cut = _most_different(mean, images)
        kind = run.task.bin_name
        ships = (row.get("weights") or {}).get("ships", "last")
        weights = "" if ships == "last" else " with its last weights, which are not the ones that ship"
        limit = f" Of {len(run.bins)}, the {MOST_BINS} that differ most from the average are shown." if cut else ""
        caption = (
            f"{table.words(method)}, first seed{weights}: the share of its attention, in %, on each block of a layer's "
            f"filters, by {kind}, mean over {int(images.sum()):,} validation images.{limit} Concentration on a single "
            f"image (0 %: all blocks equal, 100 %: only one block): {by_layer}."
        )
        blocks += drawn(heat_map([run.bins[k] for k in labels], mean[labels], stages), f"attention-{method}", caption)
    if not blocks:
        return None
    reading = Note(
        "Labels with similar rows use the same filters, labels with different rows use different filters. A layer with "
        "one dark column in every row uses one block for all labels. The figure shows which filters matter for which "
        "label. It does not show what they detect in the image, or that the prediction would change without them. "
        "Block numbers have no meaning across students: block 1 of one student is not related to block 1 of another."
    )
    return Section("What the student attends to", "attention", [reading, *blocks])


def heat_map(names: Sequence[str], mean: Array, stages: Sequence[str]) -> Figure:
    """Rows are labels, columns the blocks of each layer. mean: shares, [labels, layers, K]; the cells show %."""
    blocks = mean.shape[2]
    figure, axes = canvas(0.9 + 0.25 * len(names))
    axes.grid(False)
    ticks: list[float] = []
    for layer, stage in enumerate(stages):
        places = layer * (blocks + GAP) + np.arange(blocks)
        ticks += places.tolist()
        for line, shares in enumerate(mean[:, layer]):
            for place, share in zip(places, shares, strict=True):
                cell = Rectangle((place - 0.47, -line - 0.46), 0.94, 0.92, alpha=DARKEST * float(share))
                cell.set(facecolor=LIGHT["blue"], linewidth=0)
                axes.add_patch(cell)
                axes.text(
                    place, -line, f"{100 * share:.0f}", ha="center", va="center", fontsize=TEXT, color=LIGHT["ink"]
                )
        axes.text(
            places.mean(), 1.01, plain(stage), transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=TEXT, color=LIGHT["ink"],
        )  # fmt: skip
    axes.set_xlim(-0.6, ticks[-1] + 0.6)
    axes.set_xticks(ticks, [str(block + 1) for block in range(blocks)] * len(stages))
    axes.set_xlabel("block of filters", fontsize=TEXT)
    name_bins(axes, names)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _most_different(mean: Array, images: Array) -> tuple[list[int], bool]:
    """The labels to show, sorted, and whether some were left out: of many those furthest from the average stay."""
    present = np.flatnonzero(images)
    if len(present) <= MOST_BINS:
        return present.tolist(), False
    average = np.average(mean[present], axis=0, weights=images[present])
    distance = np.abs(mean[present] - average).sum((1, 2))
    return sorted(present[np.argsort(-distance, kind="stable")[:MOST_BINS]].tolist()), True
