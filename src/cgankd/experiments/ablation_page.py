"""The ablation's figures and page: bars for what each step adds, and the error against M; from ablation.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cgankd.core.files import read_json
from cgankd.metrics.statistics import spread
from cgankd.report import table
from cgankd.report.blocks import Grid, Note, Section, drawn
from cgankd.report.figures import LIGHT, beside, canvas, legend, name_bins, plain, save, short, style
from cgankd.report.render import write_page
from cgankd.report.run import read

NAME = "ablation.json"

Made = Mapping[str, Any]


def as_errors(results: Made, scored: Made) -> dict[str, Any]:
    """A row's or the teacher's scores as the paper draws them, lower being better: 100 - accuracy, or the MAE.

    The mean is None of a teacher that has no score.

    >>> as_errors({"higher_is_better": True}, {"values": [90.0, 92.0]})
    {'values': [10.0, 8.0], 'mean': 9.0, 'std': 1.4142135623730951}
    """
    values = [100.0 - value if results["higher_is_better"] else value for value in scored["values"]]
    return spread(values)


def render(out: Path) -> Path:
    """Draw what ``out``/ablation.json holds: ablation.html, and each figure as PNG and SVG. Returns the page."""
    made: dict[str, Any] = read_json(out / NAME)
    seeds = "" if len(made["seeds"]) < 2 else " Dots are seeds, the line one standard deviation each way."
    sections = []
    figure = bars(made)
    save(figure, out / "ablation-bars")
    caption = (
        f"Shorter is better; the bars start at zero.{seeds} The control is the student alone, for as many steps. "
        f"Each + adds one step to the bar above it.{_same(made)}"
    )
    sections.append(Section("What each step adds", "steps", drawn(figure, "ablation-bars", caption)))
    figure = curve(made)
    save(figure, out / "ablation-images")
    caption = (
        f"Lower is better; the axis starts at zero.{seeds} M = 0 is the control, no generated images; every point "
        "is trained for as many steps, with the same teacher and generator. M is drawn logarithmically."
    )
    places = _decimals(made)
    header = ["M", error_name(made), *(f"seed {seed}" for seed in made["seeds"])]
    lines = [
        [
            table.count(point["images"]),
            table.mean_and_spread(point, places),
            *(table.number(v, places) for v in point["values"]),
        ]
        for point in made["curve"]
    ]
    notes = [*(f"Not finished, the same command goes on: {name}." for name in made["missing"]), *made["warnings"]]
    blocks = [*drawn(figure, "ablation-images", caption), Grid(header, lines, "The same in numbers", wide=False)]
    sections.append(Section("Error against M", "images", [*(Note(note) for note in notes), *blocks]))
    command = f"cgankd ablate recipe.yaml --images {','.join(map(str, made['images'])) or made['curve'][-1]['images']}"
    return write_page(out / "ablation.html", read(out / made["run"]), sections, command)


def bars(made: Made) -> Figure:
    """Error per row, the bars from zero: what each step of the road adds."""
    rows, places = made["bars"], _decimals(made)
    figure, axes = canvas(0.8 + 0.33 * len(rows), x=error_name(made), grid="x")
    ends = [max(row["mean"] + (row["std"] or 0.0), *row["values"]) for row in rows]
    longest = max(ends) + 1e-9
    for place, (row, end) in enumerate(zip(rows, ends, strict=True)):
        axes.barh([-place], [row["mean"]], height=0.64, color=style(row["method"])[0], alpha=0.85)
        if row["std"]:
            spread = [row["mean"] - row["std"], row["mean"] + row["std"]]
            axes.plot(spread, [-place, -place], color=LIGHT["ink"], linewidth=1.6)
        if len(row["values"]) > 1:
            axes.plot(
                row["values"], [-place] * len(row["values"]), "o", color=LIGHT["paper"], markersize=4,
                markeredgecolor=LIGHT["ink"], markeredgewidth=0.9,
            )  # fmt: skip
        beside(axes, end + 0.012 * longest, -place, table.mean_and_spread(row, places))  # clear of the dots
    _teacher_line(made, axes.axvline)
    axes.set_xlim(0, longest * 1.36)
    name_bins(axes, ["control" if row["method"] == made["control"] else table.words(row["method"]) for row in rows])
    legend(axes)
    return figure


def curve(made: Made) -> Figure:
    """Error against M, from the control at M = 0; M logarithmic, the error from zero."""
    points = made["curve"]
    sizes = [float(point["images"]) for point in points]
    figure, axes = canvas(3.0, x="M, generated images (0: the control)", y=error_name(made))
    axes.set_xscale("symlog", linthresh=min(size for size in sizes if size), linscale=0.7)
    colour, marker = style("cgan")
    means = [point["mean"] for point in points]
    axes.plot(sizes, means, color=colour, linewidth=1.6)
    for point, size in zip(points, sizes, strict=True):
        own, shape = (colour, marker) if size else style(made["control"])
        if point["std"]:
            ends = [point["mean"] - point["std"], point["mean"] + point["std"]]
            axes.plot([size, size], ends, color=own, linewidth=2.2, alpha=0.55)
        axes.plot([size] * len(point["values"]), point["values"], "o", color=own, markersize=4, alpha=0.6)
        axes.plot([size], [point["mean"]], shape, color=own, markersize=7.5, markeredgecolor=LIGHT["paper"])
    _teacher_line(made, axes.axhline)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.margins(x=0.06)
    axes.set_ylim(0, 1.1 * max(value for point in points for value in [*point["values"], point["mean"]]) + 1e-9)
    legend(axes)
    return figure


def error_name(made: Made) -> str:
    """What the axis says: the metric itself, or that it is turned into an error."""
    if not made["higher_is_better"]:
        return table.metric_name(made)
    return f"error, {made['unit']} (100 − {made['metric']})"


def _teacher_line(made: Made, draw: Any) -> None:
    if made["teacher"] is None:
        return
    name = f"the teacher: {table.number(made['teacher'], _decimals(made))}"
    draw(made["teacher"], color=style("teacher")[0], linewidth=1.2, linestyle=(0, (4, 3)), label=plain(name))


def _same(made: Made) -> str:
    """Which bar the recipe's own cGAN-KD is, where it is one of the steps."""
    scores = {row["method"]: row["values"] for row in made["bars"]}
    own = scores.pop("cgan")
    same = [table.words(name) for name, values in scores.items() if table.is_ablation(name) and values == own]
    return f" This recipe's cGAN-KD is the bar “{same[-1]}”." if same else ""


def _decimals(made: Made) -> int:
    return table.decimals({**made, "rows": [*made["bars"], *made["curve"]]})
