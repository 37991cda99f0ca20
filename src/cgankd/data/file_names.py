"""The names of image files, relative to the source, for people: in notes and below the images of a page."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable
from pathlib import Path

from cgankd.core.hashing import content_key
from cgankd.core.paths import is_folder
from cgankd.core.terminal import on_one_line
from cgankd.data.image_files import Encoded, EncodedPictures
from cgankd.data.listing import Ints, Pictures


@dataclasses.dataclass(frozen=True)
class FileNames:
    """One for each image, or none at all. As an argument of a stage they are a hash, because they may be many."""

    names: tuple[str, ...] = ()

    @functools.cached_property
    def content_key(self) -> str:
        return content_key(*self.names)


def file_names(pictures: Pictures, rows: Ints | Iterable[int], source: str) -> tuple[str, ...]:
    """Of the images at ``rows``; () for arrays, whose images have no file of their own."""
    if not isinstance(pictures, EncodedPictures):
        return ()
    return tuple(_name(pictures.items[row], home(source)) for row in rows)


def home(source: str) -> Path:
    """The folder of a source's image files: itself, or that of a table."""
    return Path(source) if is_folder(Path(source)) else Path(source).parent


def _name(item: Path | Encoded, home: Path) -> str:
    if isinstance(item, Path):
        text = item.relative_to(home).as_posix() if item.is_relative_to(home) else item.name
    else:
        text = item.name.removeprefix(f"{home}{os.sep}")
    return on_one_line(text)
