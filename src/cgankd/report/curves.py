"""Figures about the stages: label histograms, training curves, acceptance, the filter's cut-off, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgankd.core.run_text import rounded
from cgankd.report.figures import LIGHT, MOST_BINS, beside, canvas, legend, log_axis, name_bins, plain
from cgankd.report.run import Array

DASHES: Sequence[Any] = ("-", (0, (1, 1)), (0, (7, 1.5, 1, 1.5)))  # of names with the same colour
TEACHERS = (0, (4, 2))


class Curve(NamedTuple):
    """One line: its points in order. seed: whether it is one of several seeds; these are thin."""

    name: str
    colour: str
    steps: Sequence[float]
    values: Sequence[float]
    seed: bool = False
    dashed: bool = False


def history(entries: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one key of a training history, without the entries that lack it."""
    points = [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None and "step" in entry]
    return [float(step) for step, _ in points], [float(value) for _, value in points]


def curves(lines: Sequence[Curve], y: str, log: bool = False) -> Figure | None:
    """Lines over optimiser steps; None where none has a point. log: logarithmic, if all values are positive."""
    lines = [line for line in lines if len(line.steps)]
    if not lines:
        return None
    figure, axes = canvas(2.9, x="optimiser step", y=y)
    named: set[str] = set()
    names = list(dict.fromkeys((line.colour, line.name) for line in lines))
    for line in lines:
        same = [name for colour, name in names if colour == line.colour]
        dashes = TEACHERS if line.dashed else DASHES[same.index(line.name) % len(DASHES)]
        axes.plot(
            line.steps, line.values, color=line.colour, linewidth=1.1 if line.seed else 1.6,
            alpha=0.75 if line.seed else 1.0, linestyle=dashes,
            marker="o" if len(line.steps) < 3 else "", markersize=4,
            label="_" if line.name in named else plain(line.name),
        )  # fmt: skip
        named.add(line.name)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if log and all(value > 0 for line in lines for value in line.values):
        log_axis(axes, "y")
    if len(named) > 1:
        legend(axes)
    return figure


def gan_losses(entries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The losses of both networks in the history of a GAN; None where it has none."""
    lines = [
        Curve("discriminator", LIGHT["orange"], *history(entries, "discriminator_loss")),
        Curve("generator", LIGHT["blue"], *history(entries, "generator_loss"), dashed=True),
    ]
    return curves(lines, "loss")


def histogram(names: Sequence[str], splits: Mapping[str, Sequence[float]]) -> Figure | None:
    """The label histogram of each split, as shares of the split, because splits differ in size."""
    marks = {"train": ("blue", "D"), "pool": ("sky", "p"), "val": ("orange", "^"), "test": ("ink", "s")}
    known = {split: values for split, values in splits.items() if len(values) == len(names) and sum(values) > 0}
    if not known or not names:
        return None
    # Every k-th bin where there are too many to read.
    shown = np.linspace(0, len(names) - 1, min(len(names), MOST_BINS)).round().astype(int)
    figure, axes = canvas(0.9 + 0.25 * len(shown), x="share of the split's images, %")
    for split, values in known.items():
        colour, marker = marks.get(split, ("purple", "d"))
        share = np.asarray(values, dtype=float) / sum(values) * 100
        axes.plot(
            share[shown], -np.arange(len(shown)), marker, color=LIGHT[colour], markersize=6, alpha=0.85,
            markeredgecolor=LIGHT["paper"], markeredgewidth=0.6, label=plain(f"{split} ({int(sum(values)):,})"),
        )  # fmt: skip
    axes.set_xlim(left=0)
    name_bins(axes, [names[place] for place in shown])
    legend(axes)
    return figure


def acceptance(per_label: Sequence[Mapping[str, Any]]) -> tuple[Figure, bool] | None:
    """Accepted share per label, and whether labels were left out: of many labels only the lowest are shown.

    None where nothing was rejected.
    """
    known = [
        (str(entry["label"]), 100.0 * entry["accepted"] / entry["generated"])
        for entry in per_label
        if entry.get("generated") and entry.get("accepted") is not None
    ]
    if all(share == 100.0 for _, share in known):
        return None
    if cut := len(known) > MOST_BINS:
        known = sorted(known, key=lambda pair: pair[1])[:MOST_BINS]
    figure, axes = canvas(0.6 + 0.25 * len(known), x="accepted of those generated, %", grid="x")
    places = -np.arange(len(known))
    axes.barh(places, [share for _, share in known], height=0.6, color=LIGHT["blue"])
    for place, (_, share) in enumerate(known):
        beside(axes, share, -place, f"{share:.0f}" if share >= 1 else f"{share:.1g}")
    axes.set_xlim(0, max(share for _, share in known) * 1.12 + 1e-9)
    name_bins(axes, [name for name, _ in known])
    return figure, cut


def windows(names: Sequence[str], sets: Mapping[str, Sequence[float | None]], x: str) -> tuple[Figure, bool] | None:
    """A score per class or label window, one mark per set of images; and whether windows were left out.

    Of many windows only the highest scores are shown. None where there is no score.
    """
    marks = {"raw": ("red", "X"), "processed": ("blue", "D"), "real images": ("ink", "o")}
    values = {
        name: np.array([np.nan if v is None else float(v) for v in scores])
        for name, scores in sets.items()
        if len(scores) == len(names)
    }
    known = [place for place in range(len(names)) if any(np.isfinite(scores[place]) for scores in values.values())]
    if not known:
        return None
    if cut := len(known) > MOST_BINS:
        highest = np.nan_to_num(np.nanmax(np.stack(list(values.values()))[:, known], axis=0))
        known = sorted(np.asarray(known)[np.argsort(-highest, kind="stable")[:MOST_BINS]].tolist())
    figure, axes = canvas(0.9 + 0.25 * len(known), x=x)
    for name, scores in values.items():
        colour, marker = marks.get(name, ("purple", "d"))
        axes.plot(
            scores[known], -np.arange(len(known)), marker, color=LIGHT[colour], markersize=6, alpha=0.85,
            markeredgecolor=LIGHT["paper"], markeredgewidth=0.6, label=plain(name),
        )  # fmt: skip
    axes.set_xlim(left=0)
    name_bins(axes, [names[place] for place in known])
    legend(axes, columns=3)
    return figure, cut


def errors(values: Array, thresholds: Sequence[float], x: str, log: bool) -> Figure | None:
    """Histogram of the teacher's error with the filter's cut-off, or the range of its cut-offs."""
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    if log:
        floor = max(float(np.quantile(values, 0.01)), 1e-6)
        values = np.clip(values, floor, None)
        edges = np.geomspace(floor, max(float(values.max()), floor * 10), 41)
    else:
        edges = np.linspace(0.0, max(float(np.quantile(values, 0.998)), 1e-9), 41)
        values = np.clip(values, None, edges[-1])
    figure, axes = canvas(2.9, x=x, y="images", grid="y")
    axes.hist(values, edges.tolist(), color=LIGHT["sky"])
    cuts = [cut for cut in thresholds if np.isfinite(cut) and (cut > 0 or not log)]
    if len(cuts) == 1:
        axes.axvline(cuts[0], color=LIGHT["red"], linewidth=1.6, label=f"cut-off: {rounded(cuts[0], 3)}")
    elif cuts:
        axes.axvspan(min(cuts), max(cuts), color=LIGHT["red"], alpha=0.18, linewidth=0, label="_")
        middle = float(np.median(cuts))
        label = f"cut-offs: {rounded(min(cuts), 3)} to {rounded(max(cuts), 3)}, median {rounded(middle, 3)}"
        axes.axvline(middle, color=LIGHT["red"], linewidth=1.6, label=label)
    if log:
        axes.set_xlim(edges[0], max(edges[-1], *cuts, 0.0) if cuts else edges[-1])
        log_axis(axes, "x")
    legend(axes)
    return figure


def cutoffs(names: Sequence[str], thresholds: Sequence[float], x: str) -> tuple[Figure, bool] | None:
    """The filter's cut-off of each class, and whether classes were left out: of many only the highest are shown."""
    if len(thresholds) != len(names) or len(names) < 2:
        return None
    known = [(name, cut) for name, cut in zip(names, thresholds, strict=True) if cut is not None and cut > 0]
    if not known:
        return None
    if cut_off := len(known) > MOST_BINS:
        known = sorted(known, key=lambda pair: -pair[1])[:MOST_BINS]
    figure, axes = canvas(0.6 + 0.25 * len(known), x=x)
    axes.plot([cut for _, cut in known], -np.arange(len(known)), "D", color=LIGHT["red"], markersize=6)
    log_axis(axes, "x")
    name_bins(axes, [name for name, _ in known])
    return figure, cut_off


def agreement(kept: tuple[Array, Array], dropped: tuple[Array, Array], unit: str) -> Figure:
    """The teacher's prediction against the requested label, for scalars: kept images are near the diagonal."""
    ending = f", {unit}" if unit else ""
    figure, axes = canvas(2.9, x=f"requested label{ending}", y=f"teacher's prediction{ending}")
    for (requested, predicted), colour, marker, name in (
        (kept, LIGHT["blue"], "o", "kept"),
        (dropped, LIGHT["red"], "x", "dropped"),
    ):
        axes.plot(requested, predicted, marker, color=colour, markersize=3, alpha=0.55, label=name)
    legend(axes)
    return figure
