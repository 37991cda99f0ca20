"""Listing: the content of a source, before labels are read, images are decoded and splits are made.

Every source (built-in, folder, CSV, npz, HDF5) becomes a listing; the next steps, in sources.py, are the same for all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.tasks import Task

Ints = npt.NDArray[np.int64]
TRAIN, VAL, TEST = 0, 1, 2  # a row's split in the source; TRAIN for all rows where the source has no splits


class NoSuchColumn(UserError):
    """The source has no column of the name that is needed, or no columns at all."""


class Kind(NamedTuple):
    """The properties of an image before import, read from its header."""

    width: int  # after the EXIF orientation
    height: int
    mode: str  # Pillow's name: "L", "RGB", "P", ...
    alpha: bool = False
    turned: bool = False  # by an EXIF orientation
    frames: bool = False  # whether it has several, of which the first is used
    bits: int = 8  # per value: 8 or 16


class Peak(NamedTuple):
    """The largest value in 16-bit images."""

    value: int
    place: str  # its file or array, for messages
    coarse: bool = False  # whether only the upper 8 bits can be read; value is then the largest possible one


class Rejected(NamedTuple):
    """An image that was left out."""

    path: str  # its file, or the table and row that hold it
    reason: str


class Plan(NamedTuple):
    """The shape that all images are converted to."""

    height: int
    width: int
    channels: int  # 1 or 3
    shape: str  # "crop" or "pad", for images with another aspect ratio
    bits: int = 16  # how many bits 16-bit images use


class Pictures(Protocol):
    """The images of a source, not yet decoded."""

    def kinds(self) -> Counter[Kind]:
        """The number of images of each kind."""

    def peak(self) -> Peak:
        """The largest value of all 16-bit images; only called where there are some."""

    def read(
        self, rows: Ints, plan: Plan, done: Callable[[int], None], out: npt.NDArray[np.uint8] | None = None
    ) -> Tensor:
        """The images at ``rows`` as uint8 [len(rows), C, H, W] in that order; ``done(n)`` after each n images.

        out: the array that they are written to; None: a new one.
        """

    def keep(self, rows: Ints) -> Pictures:
        """Only the images at ``rows`` (sorted), numbered from 0."""

    def origins(self) -> Iterable[tuple[Path | None, str]]:
        """Files, and what is read from each: together they tell which images these are, unless a file changes. None in
        place of a file where there is none; then a set is not kept in a file of decoded images."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """N images with their labels in the source's form.

    labels: text (N strings), or numbers [N]. splits: int64 [N] of TRAIN, VAL, TEST. groups: int64 [N]; images of equal
    value stay in one split. turn: int64 [N]; images with the lowest number are chosen first as labelled images.
    place: row -> the place of its label (file, line), for messages.
    """

    where: str
    pictures: Pictures
    labels: Sequence[str] | npt.NDArray[Any]
    splits: Ints
    place: Callable[[int], str]
    groups: Ints | None = None
    turn: Ints | None = None
    class_names: tuple[str, ...] | None = None  # labels are indices into it
    folders: bool = False  # labels are folder names: always classes, even if they look like numbers
    task: Task | None = None  # of a built-in data set; None: decided by the labels
    notes: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()  # images that were left out by data.skip_bad

    def keep(self, rows: Ints) -> Listing:
        """The same source with these rows (sorted) only."""

        def part(values: Ints | None) -> Ints | None:
            return None if values is None else values[rows]

        labels = self.labels
        return dataclasses.replace(
            self,
            pictures=self.pictures.keep(rows),
            labels=labels[rows] if isinstance(labels, np.ndarray) else [labels[row] for row in rows],
            splits=self.splits[rows],
            groups=part(self.groups),
            turn=part(self.turn),
            place=lambda row: self.place(int(rows[row])),
        )
