"""The error against the number of labelled images, from the file of an ablation (ablation.json)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cgankd.core.paths import ABLATION
from cgankd.report import table
from cgankd.report.blocks import Grid, Section, drawn
from cgankd.report.figures import LIGHT, canvas, legend, plain, short, side_by_side, style

TEACHER = "teacher"
NO_BREAK = "\u00a0"  # a space at which no line ends
Record = Mapping[str, Any]


def error_name(ablation: Record) -> str:
    """The label of the error axis: the metric itself, or 100 - accuracy."""
    if not ablation["higher_is_better"]:
        return table.metric_with_unit(ablation)
    return f"error, {ablation['unit']} (100 − {ablation['metric']})"


def read(folder: Path) -> Record | None:
    """The ablation in the folder of a run; None where there is none over numbers of labels, or it can't be read."""
    try:
        ablation = json.loads((folder / ABLATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return ablation if isinstance(ablation, dict) and ablation.get("labels") else None


def section(ablation: Record) -> Section:
    """The figure, and the same in numbers."""
    seeds = "" if len(ablation["seeds"]) < 2 else " Small dots are seeds, bars one standard deviation to each side."
    listed = ", ".join(map(str, ablation["seeds"]))
    caption = (
        f"Lower is better; the error axis starts at zero, the axis of labels is logarithmic.{seeds} Methods with the "
        f"same number of labels are drawn side by side. Seeds {listed}. Each number of labels has its own generator, "
        "and its own teacher where that is trained on the labelled images."
    )
    methods = list(dict.fromkeys(point["method"] for point in ablation["labels"]))
    places = table.decimals({**ablation, "rows": ablation["labels"]})
    cells = {
        (point["labels"], point["method"]): table.mean_and_spread(point, places).replace(" ", NO_BREAK)
        for point in ablation["labels"]
    }
    rows = [
        [table.count(size), *(cells.get((size, method), "–") for method in methods)]
        for size in sorted({point["labels"] for point in ablation["labels"]})
    ]
    header = ["labels", *(table.plain_words(method) for method in methods)]
    grid = Grid(header, rows, f"The same in numbers: {error_name(ablation)}", wide=False)
    blocks = [*drawn(figure(ablation["labels"], error_name(ablation)), "label-curve", caption), grid]
    return Section("Error against the number of labels", "labels-curve", blocks)


def figure(points: Sequence[Record], y: str) -> Figure:
    """A line per method through its mean errors, over the number of labelled training images."""
    sizes = sorted({float(point["labels"]) for point in points})
    methods = list(dict.fromkeys(point["method"] for point in points))
    drawing, axes = canvas(3.0, x="labelled training images", y=y)
    axes.set_xscale("log")
    step = 0.012 * math.log(2.0 * sizes[-1] / sizes[0])
    for number, method in enumerate(methods):
        own = sorted((point for point in points if point["method"] == method), key=lambda point: int(point["labels"]))
        places = [
            side_by_side([float(point["labels"])] * len(methods), step)[number] for point in own
        ]  # so that no method hides another
        (colour, marker), name = style(method), plain(table.plain_words(method))
        dashes = (0, (4, 3)) if method == TEACHER else "-"
        for place, point in zip(places, own, strict=True):
            axes.plot([place] * len(point["values"]), point["values"], "o", color=colour, markersize=3, alpha=0.6)
            if point["std"]:
                ends = [point["mean"] - point["std"], point["mean"] + point["std"]]
                axes.plot([place, place], ends, color=colour, linewidth=2.2, alpha=0.5)
        axes.plot(
            places, [point["mean"] for point in own], marker, color=colour, linestyle=dashes, linewidth=1.4,
            markersize=11 if marker == "*" else 7, markeredgecolor=LIGHT["paper"], label=name,
        )  # fmt: skip
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))
    axes.margins(x=0.08)
    axes.set_ylim(0, 1.1 * max(value for point in points for value in [*point["values"], point["mean"]]) + 1e-9)
    legend(axes)
    return drawing
