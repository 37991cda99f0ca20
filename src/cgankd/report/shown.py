"""What a notebook or an interactive terminal shows of results: tables and figures that show themselves."""

from __future__ import annotations

import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cgankd.core.terminal import plain_console
from cgankd.report import table
from cgankd.report.figures import LIGHT

COLUMNS = 110  # of a terminal that is not there


@dataclasses.dataclass(frozen=True)
class ShownTable:
    """A table of texts, aligned in a terminal, as HTML in a notebook. notes: sentences below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.header))]
        texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join(text.rstrip() for text in [*texts, *self.notes])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in self.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}</div>"


class RunResults(dict[str, Any]):
    """The contents of results.json, which show themselves as the run's table."""

    def __repr__(self) -> str:
        file = io.StringIO()
        plain_console(file=file, width=COLUMNS).print(table.table(self))
        warnings = [f"! {warning}" for warning in self.get("warnings", [])]
        return "\n".join([*(line.rstrip() for line in file.getvalue().rstrip().splitlines()), *warnings])

    def _repr_html_(self) -> str:
        rows = [table.cells(row) for row in table.rows(self)]
        notes = [*table.footnotes(self), *self.get("warnings", [])]
        return ShownTable(table.header(self), rows, notes)._repr_html_()


@dataclasses.dataclass(frozen=True)
class ShownFigure:
    """A matplotlib figure that a notebook shows, also without ``%matplotlib inline``."""

    figure: Figure
    name: str

    def __repr__(self) -> str:
        return f"<figure: {self.name}>"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=110, facecolor=LIGHT["paper"])
        return file.getvalue()


def counts(summary: Mapping[str, Any]) -> ShownTable:
    """How many images of each label were generated, accepted and kept. summary: of the synthesis."""
    names = ("requested", "generated", "accepted", "kept")
    lines = [[str(entry["label"]), *(f"{entry[name]:,}" for name in names)] for entry in summary["per_label"]]
    return ShownTable(["label", *names], [*lines, ["all", *(f"{summary[name]:,}" for name in names)]])
