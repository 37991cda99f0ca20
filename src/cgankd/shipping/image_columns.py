"""What is known of each generated image, as named columns, in the order of the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cgankd.core.row_file import release_pages
from cgankd.data.imageset import ImageSet
from cgankd.tasks import Task

Kind = Literal["label", "number", "probabilities"]
BLOCK = 500  # images that are in memory at once


@dataclasses.dataclass(frozen=True)
class Column:
    """One value for each image. values: class numbers int64 [N], labels or numbers float [N], or float [N, classes]."""

    kind: Kind
    values: npt.NDArray[Any]
    meaning: str

    def texts(self, task: Task, rows: slice) -> list[list[str]]:
        """The values at ``rows`` for a text file: a list for each image, of one text, or of one for each class."""
        values = self.values[rows]
        if self.kind == "label":
            return [[task.label_text(value)] for value in values.tolist()]
        return [[f"{number:.7g}" for number in np.atleast_1d(value)] for value in values]

    def header(self, name: str, task: Task) -> list[str]:
        """The names of its columns in a text file."""
        if self.kind == "probabilities":
            return [f"{name}_{answer}" for answer in task.answer_names]
        return [name]


@dataclasses.dataclass(frozen=True)
class LeavingImages:
    """Generated images as a student sees them, with all that the run knows of each. columns: "label" is the first."""

    images: ImageSet
    columns: Mapping[str, Column]
    task: Task

    def __len__(self) -> int:
        return len(self.images)

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
        """The rows from ``start`` to ``end`` in blocks, each with its pixels, uint8 [B, H, W, C].

        No more than a block is read from the disk at once.
        """
        end = len(self) if end is None else end
        for first in range(start, end, BLOCK):
            rows = slice(first, min(first + BLOCK, end))
            release_pages()
            yield rows, np.ascontiguousarray(self.images.images[rows].permute(0, 2, 3, 1).numpy())


def leaving(requested: ImageSet, relabelled: ImageSet, task: Task, replaced: bool, subsampled: bool) -> LeavingImages:
    """The columns of processed fakes.

    requested: with the labels that the generator was given. relabelled: with the labels that the student learns from.
    replaced: whether these may differ. subsampled: whether the density ratio was computed.
    """
    known = requested.columns
    unit = f", in {task.label_unit}" if task.label_unit else ""
    source = "the teacher's prediction, because labels were replaced" if replaced else "the one given to the generator"
    columns = {"label": Column("label", relabelled.labels.numpy(), f"the label{unit}: {source}")}
    if replaced:
        columns["requested_label"] = Column(
            "label", requested.labels.numpy(), f"the label given to the generator{unit}"
        )
    columns["teacher_prediction"] = Column("label", known["prediction"].numpy(), f"the teacher's prediction{unit}")
    columns["teacher_error"] = Column(
        "number", known["error"].numpy(), f"the teacher's error against the requested label ({task.error_words})"
    )
    if subsampled:
        columns["density_ratio"] = Column(
            "number", known["ratio"].numpy(), "p_real / p_fake at the requested label: above 1 looks more real"
        )
    if "probabilities" in known:
        columns["teacher_probability"] = Column(
            "probabilities", known["probabilities"].numpy(), "the teacher's probability of each class"
        )
    return LeavingImages(relabelled, columns, task)
