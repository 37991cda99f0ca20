"""The figures of a network's answers to all test images: a confusion matrix, or predictions against true labels.

Cells are drawn as few shapes, each of one opacity, so that the page stays small and fits light and dark.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from cgankd.report.figures import LETTER, LIGHT, MOST_BINS, TEXT, WIDTH, canvas, plain
from cgankd.report.run import Array
from cgankd.report.short_names import cut, distinct

LEVELS = 10  # of opacity
MOST_NUMBERS = 12  # classes; with more, the cells have no room for a number
LONGEST, LONGEST_OF_MANY = 20, 13  # letters of a class name, and where there are more than MOST_NUMBERS classes
TALLEST_CELL, LOWEST_CELL = 0.5, 0.175  # inches
LEVEL = 12  # letters; columns that have room for so many have level names
SIDE = 50  # cells on a side of the figure of scalars


def classes_shown(counts: Array) -> list[int]:
    """The classes of a confusion matrix int64 [true, predicted] that its figure shows, in order.

    All of them; of more than ``MOST_BINS`` those with the largest confusions, which are none where nothing is wrong.
    """
    if len(counts) <= MOST_BINS:
        return list(range(len(counts)))
    shown: set[int] = set()
    for true, predicted, _ in confusions(counts):
        if len(shown | {true, predicted}) > MOST_BINS:
            break
        shown |= {true, predicted}
    return sorted(shown)


def confusions(counts: Array, most: int | None = None) -> list[tuple[int, int, int]]:
    """True class, predicted class and number of images of the most frequent mistakes, the most frequent first."""
    wrong = counts - np.diag(np.diag(counts))
    true, predicted = np.nonzero(wrong)
    order = np.argsort(-wrong[true, predicted], kind="stable")[:most]
    return [(int(true[i]), int(predicted[i]), int(wrong[true[i], predicted[i]])) for i in order]


def shares(counts: Array) -> Array:
    """Of the images of each true class the percentage predicted as each; 0 where a class has no images."""
    return 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def strongest_mistake(counts: Array, shown: list[int]) -> float:
    """The largest percentage of a class that is predicted as one other class, of the classes ``shown``."""
    part = shares(counts)[np.ix_(shown, shown)]
    return float((part - np.diag(np.diag(part))).max(initial=0.0))


def matrix(counts: Array, names: list[str], shown: list[int], strongest: float, who: str) -> Figure:
    """A confusion matrix, true classes from top to bottom.

    counts: int64 [true, predicted]. shown: places of the classes in it. strongest: the percentage of a mistake that has
    the strongest colour; the same for matrices that are compared. who: the name of the network.
    """
    part, size = shares(counts)[np.ix_(shown, shown)], len(shown)
    full, longest = [names[place] for place in shown], LONGEST if size <= MOST_NUMBERS else LONGEST_OF_MANY
    rows = distinct(full, longest)
    width, upright = _column(rows or [], size)
    columns = distinct(full, LONGEST_OF_MANY if upright else int(width / LETTER))
    if rows is None or columns is None:  # then numbers connect them
        rows = [f"{place}: {cut(name, longest - 4)}" for place, name in zip(shown, full, strict=True)]
        columns = [str(place) for place in shown]
        width, _ = _column(rows, size)
        upright = max(map(len, columns)) > int(width / LETTER)
    cell = min(max(width, LOWEST_CELL), TALLEST_CELL)
    above = LETTER * max(map(len, columns)) if upright else 0.2
    figure, axes = canvas(size * cell + above + 0.45, x=f"predicted class: {who}", y="true class", grid="both")
    axes.grid(False)
    right = np.eye(size, dtype=bool)
    _squares(axes, np.where(right, part / 100.0, 0.0), "blue")
    _squares(axes, np.where(right, 0.0, part / max(strongest, 1e-9)), "red")
    if size <= MOST_NUMBERS:
        for row, column in zip(*np.nonzero(part), strict=True):
            axes.text(column, row, percentage(part[row, column]), ha="center", va="center", fontsize=TEXT)
    axes.set_xticks(range(size), [plain(name) for name in columns], rotation=90 if upright else 0)
    axes.set_yticks(range(size), [plain(name) for name in rows])
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color=LIGHT["grid"], linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    return figure


def _column(rows: list[str], size: int) -> tuple[float, bool]:
    """The width of a column in inches, beside the names of the rows; and whether it has only room for upright names."""
    longest = max(map(len, rows), default=0)
    width = (WIDTH - 0.35 - LETTER * longest) / size
    room = int(width / LETTER)
    return width, longest > room and room < LEVEL


def percentage(share: float) -> str:
    """A percentage above 0, without the sign, in a matrix's cell.

    >>> percentage(0.2), percentage(12.5), percentage(99.9)
    ('<1', '13', '>99')
    """
    return "<1" if share < 1.0 else ">99" if 99.0 < share < 100.0 else f"{math.floor(share + 0.5)}"


def limits(values: list[Array]) -> tuple[float, float]:
    """Both axes' ends, which hold all ``values``."""
    joined = np.concatenate(values)
    low, high = float(joined.min()), float(joined.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def density(labels: Array, predictions: Array, ends_of_axes: tuple[float, float], who: str, unit: str) -> Figure:
    """How many images there are at each true label and prediction, float64 [N] both: cells of ``SIDE`` by ``SIDE``.

    who: the name of the network. unit: of the label. A single image has a clearly visible colour.
    """
    ending = f", {unit}" if unit else ""
    figure, axes = canvas(4.4, x=f"true label{ending}", y=f"predicted by {who}{ending}")
    low, high = ends_of_axes
    edges = np.linspace(low, high, SIDE + 1)
    counts = np.histogram2d(labels, predictions, bins=(edges, edges))[0]
    most = np.log(max(counts.max(), 2.0))
    strength = np.where(counts > 0, 0.35 + 0.65 * np.log(np.maximum(counts, 1.0)) / most, 0.0)
    _squares(axes, strength.T, "blue", low, (high - low) / SIDE, opacity=1.0)
    axes.plot([low, high], [low, high], color=LIGHT["ink"], linewidth=1, linestyle=(0, (4, 3)))
    axes.set_aspect("equal")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    return figure


def _squares(
    axes: Axes, strength: Array, colour: str, start: float = -0.5, side: float = 1.0, opacity: float = 0.6
) -> None:
    """A square for each number above 0 of ``strength`` [rows, columns], in [0, 1]: the larger, the more opaque.

    start: the lower edge of row and column 0. opacity: the strongest, below which text on a square is easily read.
    """
    levels = np.ceil(np.clip(strength, 0.0, 1.0) * LEVELS - 1e-9).astype(int)
    for level in range(1, LEVELS + 1):
        corners = np.argwhere(levels == level)[:, ::-1] * side + start  # [n, 2], x and y
        if not len(corners):
            continue
        steps = np.array([[0, 0], [side, 0], [side, side], [0, side], [0, 0]])
        points = (corners[:, None] + steps).reshape(-1, 2)
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
        path = Path(points, np.array(codes, dtype=Path.code_type))
        axes.add_patch(PathPatch(path, facecolor=LIGHT[colour], alpha=opacity * level / LEVELS, linewidth=0))
