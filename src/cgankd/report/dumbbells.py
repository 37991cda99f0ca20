"""A table's pictures: every method alone and with generated images, the one that gains most on top."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgankd.files import file_name
from cgankd.report import table
from cgankd.report.figures import LIGHT, TEXT, dress, legend, name_bins, new_figure, plain, save, style

Made = Mapping[str, Any]

LINE = 0.23  # inches per method


def draw(found: Made, out: Path) -> None:
    """Write table-RECIPE.png and .svg to ``out`` for each table of table.json that compares anything."""
    for made in found["tables"]:
        figure = dumbbells(made)
        if figure is not None:
            save(figure, out / f"table-{file_name(made['recipe'])}")


def dumbbells(made: Made) -> Figure | None:
    """One panel per cell, one line per method: both means, both rows' seeds, and a line from one to the other."""
    cells = [cell for cell in made["cells"] if cell["gains"]]
    if not cells:
        return None
    gained: dict[str, list[float]] = {}
    for cell in cells:
        for gain in cell["gains"]:
            gained.setdefault(gain["to"], []).append(table.improvement(made, gain["mean"]))
    order = sorted(gained, key=lambda to: -statistics.fmean(gained[to]))
    figure, panels = new_figure(0.9 + LINE * len(order), columns=len(cells))
    for cell, axes in zip(cells, panels, strict=True):
        dress(axes, x=table.metric_name(made), grid="x")
        _panel(axes, made, cell, order)
    name_bins(panels[0], ["labels alone" if to == made["control"] else to for to in order])
    legend(panels[0])
    return figure


def _panel(axes: Axes, made: Made, cell: Made, order: list[str]) -> None:
    rows = {row["method"]: row for row in cell["rows"]}
    for gain in cell["gains"]:
        place = -order.index(gain["to"])
        ends = [rows[gain["to"]]["mean"], rows[gain["of"]]["mean"]]
        axes.plot(
            ends,
            [place, place],
            color=LIGHT["blue" if table.improvement(made, gain["mean"]) > 0 else "red"],
            linewidth=2.2,
            alpha=0.5,
        )
    for which, words, method, shift in (
        ("to", "alone", made["control"], 0.24),
        ("of", "with cGAN-KD", "cgan", -0.24),
    ):
        colour, marker = style(method)
        places = [-order.index(gain["to"]) for gain in cell["gains"]]
        found = [rows[gain[which]] for gain in cell["gains"]]
        for row, place in zip(found, places, strict=True):
            if len(row["values"]) > 1:
                axes.plot(
                    row["values"], [place + shift] * len(row["values"]), ".", color=colour, markersize=3, alpha=0.7
                )
        axes.plot(
            [row["mean"] for row in found], places, marker, color=colour, markersize=6, linestyle="none",
            markeredgecolor=LIGHT["paper"], markeredgewidth=0.6, label=words,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.05)
    name = ", ".join(part for part in (cell["student"], cell["setting"]) if part)
    axes.set_title(plain(name), fontsize=TEXT, loc="right", pad=24)
