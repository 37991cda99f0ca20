"""What the page is made of: sections, and in them figures, grids of images, small tables and plain sentences."""

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
    """A figure and the sentence that says what to look for."""

    kind: ClassVar[str] = "drawing"
    drawing: Markup
    caption: str


@dataclasses.dataclass(frozen=True)
class Strips:
    """Per label one strip of images for each column."""

    kind: ClassVar[str] = "strips"
    columns: tuple[str, ...]
    rows: Sequence[StripRow]
    caption: str


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Single images, each with its own text; ``wide`` takes the page's whole width."""

    kind: ClassVar[str] = "tiles"
    title: str
    tiles: Sequence[Tile]
    caption: str
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """A small table; ``folded`` hides it behind its caption until asked for, ``prose``: its cells are sentences."""

    kind: ClassVar[str] = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    folded: bool = False
    wide: bool = True
    prose: bool = False


@dataclasses.dataclass(frozen=True)
class Note:
    """A plain sentence."""

    kind: ClassVar[str] = "note"
    text: str


Block = Union[Drawing, Strips, Tiles, Grid, Note]  # noqa: UP007


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and its blocks; ``anchor`` is its place in the page's address."""

    title: str
    anchor: str
    blocks: Sequence[Block]


def drawn(figure: Figure | None, name: str, caption: str) -> list[Block]:
    """The figure as a block, or nothing where there is no figure."""
    return [] if figure is None else [Drawing(svg(figure, name, caption), caption)]
