"""What loops and stages report while they work. The base classes show nothing; watching.py shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cgankd.core.run_plan import Station

if TYPE_CHECKING:
    from torch import Tensor


class Bar:
    """How far one loop is.

    unit: of the total. images: in each of the loop's steps, for a speed in images per second; 0: not counted. metric,
    metric_unit: of the validation score ``val`` in the loop's history, as in results.json.
    """

    unit: str = "steps"
    images: float = 0.0
    metric: str = ""
    metric_unit: str = ""

    def to(self, done: float, note: str = "") -> None:
        """``done`` of the total are done. Cheap enough for every step. An empty note keeps the last one."""

    def log(self, entry: Mapping[str, float]) -> None:
        """An entry of the loop's history: ``step``, and numbers such as losses, which are plotted over the steps."""


class Progress:
    """Reports that go nowhere: the default of library calls."""

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """A loop of ``total`` steps; it ends with the block."""
        yield Bar()

    def passing(self, title: str, total: float) -> AbstractContextManager[Bar]:
        """A bar that leaves no trace when it ends: for a part of a longer task."""
        return self.bar(title, total)

    def say(self, text: str) -> None:
        """One line for the reader."""

    def opened(self, folder: Path) -> None:
        """``folder`` is locked by this process, which may write files there."""

    def closed(self) -> None:
        """The folder is unlocked next; what was only written while the run was prepared has to go before."""

    def part(self, number: int, count: int, name: str) -> None:
        """Run ``number`` (from 1) of ``count`` begins: a cell of a table."""

    def plan(self, stations: Callable[[], Sequence[Station]]) -> None:
        """A run begins; ``stations()`` lists all its stages. It is called again where a stage comes unforeseen."""

    @contextmanager
    def stage(self, station: Station) -> Iterator[None]:
        """A stage that is computed; it ends with the block."""
        yield

    def found(self, key: str, seconds: float) -> None:
        """The result of a stage is there, which took ``seconds``; another process may have computed it."""

    def score(
        self, row: str, seed: int, scores: Mapping[str, float | None], metric: str = "", metric_unit: str = ""
    ) -> None:
        """The student of a row and seed is scored: ``validation`` and ``test``, in ``metric_unit``."""

    def warn(self, sentence: str) -> None:
        """What a reader of the results should know."""

    def picture(self, name: str, image: Tensor) -> None:
        """A picture for trackers, uint8 [C, H, W]."""

    def hushed(self) -> Progress:
        """What to report to from now on, because another process of the run reports; this one falls silent."""
        return SILENT


SILENT = Progress()
