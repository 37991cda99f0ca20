"""Listing: what a source holds, before labels are read, images are decoded and splits are made.

Every source (built-in, folder, CSV, npz, HDF5) is brought to this one form; sources.py does the rest once for all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cgankd.tasks import Task

Ints = npt.NDArray[np.int64]
TRAIN, VAL, TEST = 0, 1, 2  # a row's split as the source gives it; all TRAIN where it gives none


class Kind(NamedTuple):
    """What an image is before it is imported; its header tells."""

    width: int  # as seen, that is, after the EXIF orientation
    height: int
    mode: str  # Pillow's name: "L", "RGB", "P", ...
    alpha: bool = False
    turned: bool = False  # by an EXIF orientation
    frames: bool = False  # more than one; the first counts
    bits: int = 8  # of one value: 8 or 16


class Peak(NamedTuple):
    """The largest value in images of 16 bits."""

    value: int
    place: str  # where it was seen, for messages
    coarse: bool = False  # only the upper 8 bits can be read; value is then the largest that it may be


class Plan(NamedTuple):
    """The one shape that all images are brought to."""

    height: int
    width: int
    channels: int  # 1 or 3
    shape: str  # "crop" or "pad", where an image's sides have another ratio
    bits: int = 16  # in use, of images of 16 bits


class Pictures(Protocol):
    """The images of a source, not yet decoded."""

    def kinds(self) -> Counter[Kind]:
        """How many images there are of each kind."""

    def peak(self) -> Peak:
        """The largest value of all images of 16 bits; only asked where there are some."""

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None]) -> Tensor:
        """The images at ``rows`` as uint8 [len(rows), C, H, W] in that order; ``done(n)`` after each n images."""

    def keep(self, rows: Ints) -> Pictures:
        """Only the images at ``rows`` (sorted), which are counted from 0 from then on."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """N images with their labels as the source writes them.

    labels: text (N strings), or numbers [N]. splits: int64 [N] of TRAIN, VAL, TEST. groups: int64 [N], equal
    values never straddle two splits. turn: int64 [N], views with the lowest number are chosen first as the owner's.
    place: row -> where that row's label stands, for messages.
    """

    where: str
    pictures: Pictures
    labels: Sequence[str] | npt.NDArray[Any]
    splits: Ints
    place: Callable[[int], str]
    groups: Ints | None = None
    turn: Ints | None = None
    class_names: tuple[str, ...] | None = None  # labels are rows of it
    folders: bool = False  # labels are names of folders: classes, whatever they look like
    task: Task | None = None  # a built-in's own; None: read off the labels
    notes: tuple[str, ...] = ()

    def keep(self, rows: Ints) -> Listing:
        """The same source with only these rows (sorted)."""

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
