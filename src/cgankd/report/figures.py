"""The figures' canvas and colours, and the figures that compare the rows of a run.

A figure is drawn once, in the colours of the light page; :func:`svg` replaces each colour by a CSS variable, so it also
fits the dark page. Text in figures stays text, which can be searched and has the page's font.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cgankd.core.files import replacing
from cgankd.core.terminal import on_one_line
from cgankd.report import fonts, table
from cgankd.report.short_names import cut, distinct

# Okabe and Ito's colours, which colour-blind readers can distinguish; the dark page has lighter ones.
LIGHT = {
    "ink": "#1b1f24", "muted": "#5f6b76", "grid": "#dfe3e8", "paper": "#fefefe",
    "blue": "#0072b2", "orange": "#d98a00", "green": "#009e73", "red": "#d55e00",
    "purple": "#b8608f", "sky": "#56b4e9", "brown": "#8a6a3a",
}  # fmt: skip
DARK = {
    "ink": "#e6e9ec", "muted": "#9aa5b0", "grid": "#333a42", "paper": "#16191d",
    "blue": "#4da6e0", "orange": "#f0b340", "green": "#2cc79a", "red": "#f08040",
    "purple": "#dd90ba", "sky": "#9ad4f5", "brown": "#c2a070",
}  # fmt: skip

STYLE: Mapping[str, tuple[str, str]] = {  # method -> colour, marker, which differs too
    "nokd": ("muted", "o"),
    "nokd_longer": ("ink", "s"),
    "augment": ("brown", "<"),
    "pseudo": ("purple", ">"),
    "kd": ("orange", "^"),
    "fm": ("purple", "s"),
    "cgan": ("blue", "D"),
    "cgan_kd": ("green", "v"),
    "cgan_raw": ("red", "X"),
    "cgan_subsample": ("purple", "P"),
    "cgan_filter": ("sky", "p"),
    "cgan_replace": ("brown", "h"),
    "teacher": ("red", "*"),
}
OTHERS = [  # only filled markers: the others are only an edge, which has the paper's colour
    (colour, marker)
    for marker in "d*8H<>hpPX"
    for colour in ("purple", "brown", "sky", "orange", "green", "blue", "red")
    if (colour, marker) not in STYLE.values()
]
WIDTH = 5.0  # inches; 360 units of the drawing, about the width of a phone, so that text is never scaled down
TEXT = 10.0
LETTER = 0.078  # inches, the width of a letter
MOST_BINS = 24
LEGEND_LETTERS, HANDLE = 58, 5  # in a line of a legend, of which each column's mark takes some
LEGEND_LINE = 0.2  # inches
SPREAD = 0.7  # of a bin's height, over which the marks of the methods are spread
LONGEST = (24, 32, 40)  # letters of a bin's name; more only where names would look the same
TALLEST = 8.0  # inches, of the chart of all bins
MOST_METHODS = 8  # in one chart of all bins


def style(method: str) -> tuple[str, str]:
    """A method's colour, as the hex of the light page, and its marker."""
    number = zlib.crc32(method.encode())  # so that a method without its own style always has the same one
    colour, marker = STYLE.get(method, OTHERS[number % len(OTHERS)])
    return LIGHT[colour], marker


def plain(text: str) -> str:
    """Text on one line, escaped so that matplotlib does not read it as mathematics."""
    return on_one_line(text).replace("$", r"\$")


def canvas(height: float, x: str = "", y: str = "", grid: str = "both") -> tuple[Figure, Axes]:
    """A figure with one styled pair of axes. height: in inches; grid: the axis with grid lines."""
    figure, (axes,) = new_figure(height)
    dress(axes, x, y, grid)
    return figure, axes


def new_figure(height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with unstyled axes side by side, on the same scales. height: in inches."""
    figure = Figure(figsize=(WIDTH * (1 + 0.7 * (columns - 1)), height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0])


def dress(axes: Axes, x: str = "", y: str = "", grid: str = "both") -> None:
    """Give axes the page's lines, colours and font sizes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT["muted"])
    axes.tick_params(which="both", colors=LIGHT["muted"], labelcolor=LIGHT["ink"], labelsize=TEXT, length=3)
    axes.grid(True, axis=grid, color=LIGHT["grid"], linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.set_xlabel(plain(x), fontsize=TEXT)
    axes.set_ylabel(plain(y), fontsize=TEXT)


def legend(axes: Axes, columns: int = 2) -> None:
    """A legend above all axes, from the figure's left edge on, so that it fits beside long names of bins.

    Its columns are fewer where its texts are long.

    From the third line on, each line makes the figure higher, so that the axes keep their size.
    """
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = next((n for n in range(columns, 1, -1) if _letters(labels, n) <= LEGEND_LETTERS), 1)
        more = max(0, -(-len(labels) // columns) - 2)
        figure = axes.figure
        assert isinstance(figure, Figure)
        figure.set_figheight(figure.get_figheight() + more * LEGEND_LINE)
        drawn = figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=TEXT,
            borderpad=0.2, borderaxespad=0.2, handletextpad=0.5, columnspacing=1.2,
        )  # fmt: skip
        for handle in drawn.legend_handles:
            if isinstance(handle, Line2D):  # a mark that is large in the figure would hide texts here
                handle.set_markersize(min(handle.get_markersize(), 11 if handle.get_marker() == "*" else 7))


def _letters(labels: Sequence[str], columns: int) -> int:
    """The width of a legend in letters. matplotlib fills its columns from top to bottom, the first ones with more."""
    rows, longer = divmod(len(labels), columns)
    sizes = [rows + (place < longer) for place in range(columns)]
    ends = [sum(sizes[: place + 1]) for place in range(columns)]
    parts = [labels[end - size : end] for end, size in zip(ends, sizes, strict=True) if size]
    return sum(HANDLE + max(len(str(label)) for label in part) for part in parts)


def log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis labelled in plain numbers."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    narrow = high / max(low, 1e-300) < 300
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A number, short enough for a tick.

    >>> short(0.05), short(2000), short(50_000), short(2e6)
    ('0.05', '2000', '50k', '2M')
    """
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as inline SVG; ``name`` makes its ids differ from those of other figures."""
    file = io.StringIO()
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set(facecolor="none", edgecolor="none")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), fonts.left_to_the_reader():
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # savefig would draw it twice
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # ids of groups, which are the same in every figure
    text = re.sub(r'(<svg)[^>]*?( viewBox="[^"]*")[^>]*>', r"\1\2>", text, count=1)
    text = re.sub(r"<[^>]*>", _in_variables, text)  # only inside tags, because a class may have the name #0072b2
    label = Markup.escape(description)
    return Markup(re.sub(r"\n\s*", "\n", text).replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def _in_variables(tag: re.Match[str]) -> str:
    """A tag where CSS variables replace the colours of the light page."""
    text = tag[0]
    for variable, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{variable})")
    return text


def save(figure: Figure | None, path: Path) -> None:
    """Write ``path``.svg and ``path``.png, each completely or not at all, on the light page's colour.

    None: there is no such figure (any more); those of an earlier call are removed.
    """
    if figure is None:
        for kind in ("svg", "png"):
            path.with_name(f"{path.name}.{kind}").unlink(missing_ok=True)
        return
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}), fonts.left_to_the_reader():
        for kind in ("svg", "png"):
            if kind == "png":
                fonts.fit(figure)  # only for the PNG; text in an SVG stays text
            with replacing(path.with_name(f"{path.name}.{kind}")) as temporary:
                metadata = {"Date": None} if kind == "svg" else None  # so that the same numbers give the same bytes
                figure.savefig(temporary, format=kind, dpi=200, facecolor=LIGHT["paper"], metadata=metadata)


def dots(results: Mapping[str, Any]) -> Figure:
    """One line per row, and the control's mean as a line through all."""
    rows = results["rows"]
    figure, axes = scored_rows(results, rows, [table.words(row["method"]) for row in rows])
    for row in rows:
        if row["method"] == results.get("control"):
            axes.axvline(row["mean"], color=LIGHT["ink"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    return figure


def scored_rows(
    results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], names: Sequence[str], in_layout: bool = True
) -> tuple[Figure, Axes]:
    """One line per row, below its name and score: a dot per seed, and the mean with its standard deviation.

    in_layout: whether the axes make room for a long name.
    """
    figure, axes = canvas(0.62 + 0.46 * len(rows), x=table.metric_with_unit(results), grid="x")
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        colour, marker = style(row["method"])
        if row.get("std"):
            ends = [row["mean"] - row["std"], row["mean"] + row["std"]]
            axes.plot(ends, [-place, -place], color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="round")
        axes.plot(row["values"], [-place] * len(row["values"]), "o", color=colour, markersize=4, alpha=0.6)
        axes.plot(
            [row["mean"]], [-place], marker, color=colour, markersize=7.5, markeredgecolor=LIGHT["paper"],
            markeredgewidth=0.5,
        )  # fmt: skip
        text = f"{name}: {table.score(results, row['mean'], row.get('std'))}"
        axes.text(
            0.0, -place + 0.3, plain(text), transform=axes.get_yaxis_transform(), fontsize=TEXT, va="center",
            bbox={"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 0.8}, in_layout=in_layout,
        )  # fmt: skip
    axes.set_ylim(-len(rows) + 0.55, 0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return figure, axes


def bins(results: Mapping[str, Any]) -> tuple[Figure, str] | None:
    """Score per class or label bin, one line per bin and one mark per main method; and sentences on what is left out.

    The marks of a bin are below each other, so that equal scores hide none. Of many bins, those where the methods
    differ most are shown; of many methods, the control and those furthest from it. None where there are no scores per
    bin.
    """
    names: Sequence[str] = results.get("bins") or []
    every = [row for row in results["rows"] if len(row.get("per_bin") or []) == len(names)]
    control_there = any(row["method"] == results.get("control") for row in every)
    left_out = "nokd" if control_there else ""  # which is the control with fewer steps
    methods = [row for row in every if row["method"] != left_out and not table.is_ablation(row["method"])]
    if len(methods) < 2:  # nothing to compare
        methods = every
    if not names or not methods:
        return None
    limits = ""
    if len(methods) > MOST_METHODS:
        control = next((row for row in methods if row["method"] == results.get("control")), methods[0])
        far = sorted(methods, key=lambda row: (row is not control, -abs(row["mean"] - control["mean"])))
        limits += f" Of {len(methods)} methods, {control['method']} and those furthest from it are shown."
        methods = [row for row in methods if any(row is kept for kept in far[:MOST_METHODS])]
    scores = np.array([[np.nan if v is None else float(v) for v in row["per_bin"]] for row in methods])
    shown = list(range(len(names)))
    if len(names) > MOST_BINS:
        limits += f" Of {len(names)}, those where these methods differ most are shown."
        spread = np.nan_to_num(np.nanmax(scores, axis=0, initial=-np.inf) - np.nanmin(scores, axis=0, initial=np.inf))
        shown = sorted(np.argsort(-spread, kind="stable")[:MOST_BINS].tolist())
    height = min(max(0.25, 0.1 + 0.12 * (len(methods) - 1)), max(0.25, TALLEST / len(shown)))
    figure, axes = canvas(0.9 + height * len(shown), x=table.metric_with_unit(results), grid="x")
    axes.set_yticks(0.5 - np.arange(1, len(shown)), minor=True)  # lines between bins
    axes.tick_params(axis="y", which="minor", length=0)
    axes.grid(True, axis="y", which="minor", color=LIGHT["grid"], linewidth=0.8)
    offsets = np.linspace(SPREAD / 2, -SPREAD / 2, len(methods)) if len(methods) > 1 else [0.0]
    for offset, (row, values) in zip(offsets, zip(methods, scores, strict=True), strict=True):
        colour, marker = style(row["method"])
        axes.plot(
            values[shown], offset - np.arange(len(shown)), marker, color=colour, markersize=6, alpha=0.9,
            markeredgecolor=LIGHT["paper"], markeredgewidth=0.6, label=plain(table.words(row["method"])),
        )  # fmt: skip
    name_bins(axes, [str(names[place]) for place in shown])
    legend(axes)
    return figure, limits


def name_bins(axes: Axes, names: Sequence[str]) -> None:
    """Write bin names along the y axis, the first on top; long names are cut so that they still differ."""
    texts = next((texts for longest in LONGEST if (texts := distinct(names, longest))), None)
    texts = texts or [f"{place}: {cut(name, LONGEST[0])}" for place, name in enumerate(names, start=1)]
    axes.set_yticks(-np.arange(len(names)), [plain(text) for text in texts])
    axes.set_ylim(-len(names) + 0.4, 0.6)


def cost(results: Mapping[str, Any], by: str) -> Figure | None:
    """Score against ``by``: "parameters", or "latency" in ms per image; None where it was not measured.

    A network of one size has one place, also where several rows share it: marks of equal scores are drawn in rings.
    """
    latency = results.get("latency_ms") or {}
    points: list[tuple[str, float, float, float]] = []
    teacher = results.get("teacher") or {}
    named = [("teacher", teacher, teacher.get("test"))] if teacher else []
    named += [(row["method"], row, row["mean"]) for row in results["rows"]]
    for method, source, value in named:
        place = source.get("parameters") if by == "parameters" else latency.get(source.get("network"))
        if place and value is not None:
            points.append((method, float(place), float(value), float(source.get("std") or 0.0)))
    if not points:
        return None
    label = "size, parameters" if by == "parameters" else "time for one image, ms (batch of 1)"
    figure, axes = canvas(3.0, x=label, y=table.metric_with_unit(results))
    places = [place for _, place, _, _ in points]
    ranks = _ranks([value for _, _, value, _ in points], places)
    for (method, place, value, deviation), rank in zip(points, ranks, strict=True):
        colour, marker = style(method)
        if deviation:
            axes.plot([place] * 2, [value - deviation, value + deviation], color=colour, linewidth=2.2, alpha=0.4)
        axes.plot(
            [place], [value], marker, color=colour, markersize=(11 if marker == "*" else 7) + 8 * rank, alpha=0.9,
            markeredgecolor=LIGHT["paper"], label=plain(table.plain_words(method)), zorder=3 - 0.01 * rank,
        )  # fmt: skip
    axes.set_xlim(min(places) / 2, max(places) * 2)
    log_axis(axes, "x")
    axes.margins(y=0.12)
    legend(axes)
    return figure


def _ranks(values: Sequence[float], places: Sequence[float]) -> list[int]:
    """How many earlier marks each mark would hide: those at the same place within a fiftieth of the scores' range.

    >>> _ranks([80.0, 80.1, 90.0], [5.0, 5.0, 5.0])
    [0, 1, 0]
    """
    near = (max(values) - min(values)) / 50
    points = list(zip(places, values, strict=True))
    return [
        sum(place == other and abs(value - score) <= near for other, score in points[:number])
        for number, (place, value) in enumerate(points)
    ]


def side_by_side(places: Sequence[float], step: float) -> list[float]:
    """Places on a logarithmic axis, equal ones moved apart by ``step`` (a difference of natural logarithms).

    >>> [round(place, 2) for place in side_by_side([10.0, 10.0, 50.0], math.log(1.21))]
    [9.09, 11.0, 50.0]
    """
    seen: dict[float, int] = {}
    moved = []
    for place in places:
        rank = seen[place] = seen.get(place, -1) + 1
        moved.append(place * math.exp(step * (rank - (places.count(place) - 1) / 2)))
    return moved


def beside(axes: Axes, x: float, y: float, text: str) -> None:
    """Write a bar's number to the right of its end."""
    axes.annotate(text, (x, y), (3, 0), textcoords="offset points", va="center", fontsize=TEXT)
