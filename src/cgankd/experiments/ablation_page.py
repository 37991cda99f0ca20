"""The ablation's page and figures, from ablation.json: what each step adds, and the error against M and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cgankd.core.files import read_json
from cgankd.core.paths import ABLATION
from cgankd.metrics.statistics import spread
from cgankd.report import label_curve, table
from cgankd.report.blocks import Grid, Note, Section, drawn
from cgankd.report.figures import LIGHT, beside, canvas, legend, name_bins, plain, save, short, style
from cgankd.report.label_curve import error_name
from cgankd.report.render import write_page
from cgankd.report.run import read

Record = Mapping[str, Any]


def as_errors(results: Record, scored: Record) -> dict[str, Any]:
    """The scores of a row or the teacher as errors, as in the paper: 100 - accuracy, or the MAE; lower is better.

    The mean is None for a teacher without a score.

    >>> as_errors({"higher_is_better": True}, {"values": [90.0, 92.0]})
    {'values': [10.0, 8.0], 'mean': 9.0, 'std': 1.4142135623730951}
    """
    values = [100.0 - value if results["higher_is_better"] else value for value in scored["values"]]
    return spread(values)


def render(out: Path) -> Path:
    """Write ablation.html, and each figure as PNG and SVG, from ``out``/ablation.json. Returns the page's path."""
    ablation: dict[str, Any] = read_json(out / ABLATION)
    seeds = "" if len(ablation["seeds"]) < 2 else " Dots are seeds, lines one standard deviation to each side."
    sections = []
    figure = bars(ablation)
    save(figure, out / "ablation-bars")
    caption = (
        f"Shorter is better; the bars start at zero.{seeds} The control is the student alone, with equal steps. "
        f"Each + adds one step to the bar above it.{_equal_bar(ablation)}"
    )
    sections.append(Section("What each step adds", "steps", drawn(figure, "ablation-bars", caption)))
    figure = curve(ablation)
    save(figure, out / "ablation-images")
    caption = (
        f"Lower is better; the axis starts at zero.{seeds} M = 0 is the control, without generated images; every point "
        "is trained with equal steps, the same teacher and the same generator. The M axis is logarithmic."
    )
    places = _decimals(ablation)
    header = ["M", error_name(ablation), *(f"seed {seed}" for seed in ablation["seeds"])]
    lines = [
        [
            table.count(point["images"]),
            table.mean_and_spread(point, places),
            *(table.number(v, places) for v in point["values"]),
        ]
        for point in ablation["curve"]
    ]
    notes = [
        *(f"Not finished; the same command continues: {name}." for name in ablation["missing"]),
        *ablation["warnings"],
    ]
    blocks = [*drawn(figure, "ablation-images", caption), Grid(header, lines, "The same in numbers", wide=False)]
    sections.append(Section("Error against M", "images", [*(Note(note) for note in notes), *blocks]))
    counts = ",".join(map(str, ablation["images"])) or ablation["curve"][-1]["images"]
    command = f"cgankd ablate recipe.yaml --images {counts}"
    labels = ablation.get("labels")
    save(label_curve.figure(labels, error_name(ablation)) if labels else None, out / "ablation-labels")
    if labels:
        sections.append(label_curve.section(ablation))
        command += f" --labels {','.join(str(size) for size in sorted({p['labels'] for p in labels}))}"
    return write_page(out / "ablation.html", read(out / ablation["run"]), sections, command)


def remove(out: Path) -> None:
    """Remove ablation.json and all that was made of it."""
    for name in (ABLATION, "ablation.csv", "ablation.html"):
        (out / name).unlink(missing_ok=True)
    for name in ("bars", "images", "labels"):
        save(None, out / f"ablation-{name}")


def bars(ablation: Record) -> Figure:
    """Error per row, as bars from zero: what each step adds."""
    rows, places = ablation["bars"], _decimals(ablation)
    figure, axes = canvas(0.8 + 0.33 * len(rows), x=error_name(ablation), grid="x")
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
        beside(axes, end + 0.012 * longest, -place, table.mean_and_spread(row, places))  # to the right of the dots
    _teacher_line(ablation, axes.axvline)
    axes.set_xlim(0, longest * 1.36)
    name_bins(axes, ["control" if row["method"] == ablation["control"] else table.words(row["method"]) for row in rows])
    legend(axes)
    return figure


def curve(ablation: Record) -> Figure:
    """Error against M, with the control at M = 0; the M axis is logarithmic, the error axis starts at zero."""
    points = ablation["curve"]
    sizes = [float(point["images"]) for point in points]
    figure, axes = canvas(3.0, x="M, generated images (0: the control)", y=error_name(ablation))
    axes.set_xscale("symlog", linthresh=min(size for size in sizes if size), linscale=0.7)
    colour, marker = style("cgan")
    means = [point["mean"] for point in points]
    axes.plot(sizes, means, color=colour, linewidth=1.6)
    for point, size in zip(points, sizes, strict=True):
        own, shape = (colour, marker) if size else style(ablation["control"])
        if point["std"]:
            ends = [point["mean"] - point["std"], point["mean"] + point["std"]]
            axes.plot([size, size], ends, color=own, linewidth=2.2, alpha=0.55)
        axes.plot([size] * len(point["values"]), point["values"], "o", color=own, markersize=4, alpha=0.6)
        axes.plot([size], [point["mean"]], shape, color=own, markersize=7.5, markeredgecolor=LIGHT["paper"])
    _teacher_line(ablation, axes.axhline)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.margins(x=0.06)
    axes.set_ylim(0, 1.1 * max(value for point in points for value in [*point["values"], point["mean"]]) + 1e-9)
    legend(axes)
    return figure


def _teacher_line(ablation: Record, draw: Any) -> None:
    if ablation["teacher"] is None:
        return
    name = f"the teacher: {table.number(ablation['teacher'], _decimals(ablation))}"
    draw(ablation["teacher"], color=style("teacher")[0], linewidth=1.2, linestyle=(0, (4, 3)), label=plain(name))


def _equal_bar(ablation: Record) -> str:
    """A sentence that names the bar equal to the recipe's own cGAN-KD; "" where there is none."""
    scores = {row["method"]: row["values"] for row in ablation["bars"]}
    own = scores.pop("cgan")
    equal = [table.words(name) for name, values in scores.items() if table.is_ablation(name) and values == own]
    return f" This recipe's cGAN-KD is the bar “{equal[-1]}”." if equal else ""


def _decimals(ablation: Record) -> int:
    return table.decimals({**ablation, "rows": [*ablation["bars"], *ablation["curve"]]})
