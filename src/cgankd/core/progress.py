"""Progress in the terminal: one bar per stage with the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from cgankd.core.terminal import on_one_line


class Bar:
    """A bar that shows nothing; the default."""

    def to(self, done: float, note: str = "") -> None:
        """``done`` of the total are done; ``note`` is shown after the bar."""


class Progress:
    """Progress that shows nothing: the default of library calls."""

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """A bar for one task; it ends with the block."""
        yield Bar()

    def passing(self, title: str, total: float) -> AbstractContextManager[Bar]:
        """A bar that disappears when its task ends: for a part of a longer task."""
        return self.bar(title, total)

    def say(self, text: str) -> None:
        """Print one line."""


class _ConsoleBar(Bar):
    def __init__(self, bars: RichProgress, row: TaskID) -> None:
        self.bars, self.row = bars, row

    def to(self, done: float, note: str = "") -> None:
        self.bars.update(self.row, completed=done, note=note)


class ConsoleProgress(Progress):
    """Bars on a terminal; where output is not a terminal, one line when a task ends."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        with self._bar(title, total) as bar:
            yield bar

    def passing(self, title: str, total: float) -> AbstractContextManager[Bar]:
        return self._bar(title, total, transient=True)

    @contextmanager
    def _bar(self, title: str, total: float, transient: bool = False) -> Iterator[Bar]:
        bars = RichProgress(
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=transient,
            disable=transient and not self.console.is_terminal,
        )
        with bars:
            yield _ConsoleBar(bars, bars.add_task(on_one_line(title), total=total, note=""))

    def say(self, text: str) -> None:
        self.console.print(on_one_line(text), markup=False, emoji=False, highlight=False)


SILENT = Progress()
