"""The command ``compare``: finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from cgankd.cli.screen import console
from cgankd.core.terminal import on_one_line

if TYPE_CHECKING:
    from cgankd.report.comparison import Part


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR DIR ...", help="the --out folders of finished runs")],
    out: Annotated[Path, typer.Option("--out", help="the page")] = Path("compare.html"),
) -> None:
    """Put finished runs side by side: their rows, and what differs in their settings. Writes one page."""
    from cgankd.report import comparison

    runs = comparison.read_runs(folders)
    page = comparison.render(runs, out)
    for part in comparison.parts(runs):
        _print_part(part)
    if settings := comparison.different_settings(runs):
        differences = _table(["setting", *runs], "Settings that differ")
        for line in settings:
            differences.add_row(*(Text(on_one_line(cell)) for cell in line))
        console.print(differences)
    if times := comparison.times(runs):
        console.print(on_one_line(times), soft_wrap=True)
    console.print(f"{page}  (open it in a browser)", soft_wrap=True)


def _print_part(part: Part) -> None:
    """The table of a part; narrower than that of the page, so that it fits into 80 characters."""
    from cgankd.report import comparison
    from cgankd.report.table import metric_with_unit

    if part.why:
        console.print(on_one_line(part.why), soft_wrap=True)
    output = _table(["run, method", "network", "parameters", "ms per\nimage", metric_with_unit(part.results), ""], "")
    texts, best = comparison.rows(part)
    for place, (name, words, score, note, network, size, latency, *_) in enumerate(texts):
        cells = [f"{name}: {words}", network, size, latency, score, note]
        output.add_row(*(Text(on_one_line(cell)) for cell in cells), style="bold" if place == best else None)
    output.caption = Text("\n".join(comparison.footnotes(part)))
    console.print(output)


def _table(header: list[str], title: str) -> Table:
    output = Table(
        title=Text(title), caption_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for name in header:
        output.add_column(Text(name), overflow="fold")
    return output
