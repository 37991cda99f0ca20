"""The parts of the page: sections with figures, grids of images, small tables and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Union

from markupsafe import Markup
from matplotlib.figure import Figure

from cgankd.report.figures import svg
from cgankd.report.grids import StripRow, Tile


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure and a sentence that says what to look for."""

    kind: ClassVar[str] = "drawing"
    drawing: Markup
    caption: str


@dataclasses.dataclass(frozen=True)
class Strips:
    """A row per label, with one strip of images in each column."""

    kind: ClassVar[str] = "strips"
    columns: tuple[str, ...]
    rows: Sequence[StripRow]
    caption: str


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Single images, each with its own text. wide: over the whole width of the page."""

    kind: ClassVar[str] = "tiles"
    title: str
    tiles: Sequence[Tile]
    caption: str
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """A small table. folded: hidden until the reader clicks the caption. prose: its cells are sentences.

    strong: the places of the rows that are marked. left: the number of columns that are text, not numbers.
    """

    kind: ClassVar[str] = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    folded: bool = False
    wide: bool = True
    prose: bool = False
    strong: Sequence[int] = ()
    left: int = 1


@dataclasses.dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str


@dataclasses.dataclass(frozen=True)
class Answered:
    """One image, its true label, and the answers of networks, as texts. file: its name, or empty."""

    source: str
    texts: Sequence[str]
    file: str = ""


@dataclasses.dataclass(frozen=True)
class Answers:
    """A table with one image in each row. header: of the texts."""

    kind: ClassVar[str] = "answers"
    title: str
    header: Sequence[str]
    rows: Sequence[Answered]


@dataclasses.dataclass(frozen=True)
class SliderStep:
    """The images at one label."""

    label: str
    source: str


@dataclasses.dataclass(frozen=True)
class Slider:
    """Images at labels in order: a slider shows one label; without script and on paper all are shown.

    name, unit: of the label; the unit begins with a space, or is empty.
    """

    kind: ClassVar[str] = "slider"
    title: str
    name: str
    unit: str
    steps: Sequence[SliderStep]
    caption: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    text: str


Block = Union[Drawing, Strips, Tiles, Grid, Note, Answers, Slider, Code]  # noqa: UP007


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and its blocks; ``anchor`` is its id, for links."""

    title: str
    anchor: str
    blocks: Sequence[Block]


def drawn(figure: Figure | None, name: str, caption: str) -> list[Block]:
    """The figure as a block; [] where there is no figure."""
    return [] if figure is None else [Drawing(svg(figure, name, caption), caption)]
