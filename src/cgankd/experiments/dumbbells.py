"""A table's figures: every method alone and with generated images; the method that gains most is on top."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgankd.core.files import file_name
from cgankd.report import table
from cgankd.report.figures import (
    LEGEND_LINE,
    LETTER,
    LIGHT,
    TEXT,
    dress,
    legend,
    name_bins,
    new_figure,
    plain,
    save,
    style,
)

Record = Mapping[str, Any]

LINE = 0.24  # inches per method
SEEDS = 0.3  # distance of the seeds' dots from the line of the means, in lines


def draw(content: Record, out: Path) -> None:
    """Write table-RECIPE.png and .svg to ``out`` for each table with gains; content: of table.json.

    Where a table has none (any more), those of an earlier call are removed.
    """
    tables = {recipe_table["recipe"]: recipe_table for recipe_table in content["tables"]}
    for name in content["recipes"]:
        save(dumbbells(tables[name]) if name in tables else None, out / f"table-{file_name(name)}")


def dumbbells(recipe_table: Record) -> Figure | None:
    """One panel per cell, one line per method: both means with a line between them, and the seeds of both.

    None where no method was compared.
    """
    cells = [cell for cell in recipe_table["cells"] if cell["gains"]]
    if not cells:
        return None
    gained: dict[str, list[float]] = {}
    for cell in cells:
        for gain in cell["gains"]:
            gained.setdefault(table.compared(gain["of"]), []).append(table.improvement(recipe_table, gain["mean"]))
    order = sorted(gained, key=lambda name: -statistics.fmean(gained[name]))
    figure, panels = new_figure(1.0 + LINE * len(order), columns=len(cells))
    for cell, axes in zip(cells, panels, strict=True):
        better = "higher" if recipe_table["higher_is_better"] else "lower"
        dress(axes, x=f"{table.metric_with_unit(recipe_table)} ({better} is better)")
        _panel(axes, recipe_table, cell, order, figure.get_figwidth() / (len(cells) + 0.5))
    lines = max(axes.get_title(loc="right").count("\n") for axes in panels)
    figure.set_figheight(figure.get_figheight() + lines * LEGEND_LINE)
    name_bins(panels[0], order)
    legend(panels[0], columns=4)
    return figure


def _panel(axes: Axes, recipe_table: Record, cell: Record, order: list[str], room: float) -> None:
    """room: the width for the title in inches."""
    rows = {row["method"]: row for row in cell["rows"]}
    drawn = [(gain, -order.index(table.compared(gain["of"]))) for gain in cell["gains"]]
    for label, colour, better in (("better", "blue", True), ("worse", "red", False)):
        for gain, place in drawn:
            if (table.improvement(recipe_table, gain["mean"]) > 0) == better:
                ends = [rows[gain["to"]]["mean"], rows[gain["of"]]["mean"]]
                axes.plot(ends, [place, place], color=LIGHT[colour], linewidth=2.2, alpha=0.5)
        axes.plot([], [], color=LIGHT[colour], linewidth=2.2, alpha=0.5, label=label)
    for which, label, method, shift in (
        ("to", "alone", recipe_table["control"], SEEDS),
        ("of", "with cGAN-KD", "cgan", -SEEDS),
    ):
        colour, marker = style(method)
        points = [(rows[gain[which]], place) for gain, place in drawn]
        for row, place in points:
            if len(row["values"]) > 1:
                seeds = row["values"]
                axes.plot(seeds, [place + shift] * len(seeds), ".", color=colour, markersize=3, alpha=0.7)
        axes.plot(
            [row["mean"] for row, _ in points], [place for _, place in points], marker, color=colour, markersize=5,
            markeredgecolor=LIGHT["paper"], markeredgewidth=0.6, label=label,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.05)
    name = ", ".join(part for part in (cell["student"], cell["setting"]) if part)
    lines = textwrap.wrap(name, int(room / LETTER))  # so that the titles of panels do not run into each other
    axes.set_title("\n".join(map(plain, lines)), fontsize=TEXT, loc="right")
