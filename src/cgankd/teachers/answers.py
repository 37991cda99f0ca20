"""A teacher given by a file of predictions, which are looked up by an image's pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cgankd.core.errors import UserError, first_of
from cgankd.core.mapped_rows import Images
from cgankd.core.numbers import number
from cgankd.data.image_files import FilePictures
from cgankd.data.imageset import as_bytes, contents
from cgankd.data.label_text import clean
from cgankd.data.sources import load_alike
from cgankd.data.table import FILE, Table, read_table
from cgankd.tasks import Task
from cgankd.teachers.black_box import SETTING, BlackBox

PREDICTION = "prediction"
VIEWS = "views"  # the folder beside a file of predictions with further images and their predictions
ROUNDING = 0.01  # allowed deviation of the sum of probabilities from 1


class StoredAnswers(BlackBox):
    """Stored outputs, looked up by an image's pixels. If an image occurs twice, its first outputs count.

    images: uint8 [N, C, H, W]. outputs: float32 [N, number of outputs]. Raises UserError for any other image.
    """

    def __init__(self, images: Tensor, outputs: Tensor, name: str) -> None:
        self.outputs, self.name = outputs, name
        self._row: dict[bytes, int] = {}
        for row, content in enumerate(contents(images)):
            self._row.setdefault(content, row)
        digest = hashlib.blake2b(outputs.numpy().tobytes(), digest_size=16)
        digest.update(b"".join(contents(images)))
        self.own_key = digest.hexdigest()

    def raw_outputs(self, images: Tensor) -> Tensor:
        keys = contents(as_bytes(images))
        if missing := sum(content not in self._row for content in keys):
            raise UserError(
                f"{SETTING} {self.name}: has no prediction for {missing:,} of {len(keys):,} images; needed: all; those "
                "that rows such as kd and fm need are written by cgankd synthesize --import FILE --views"
            )
        return self.outputs[[self._row[content] for content in keys]]

    def unanswered(self, images: Images) -> int:
        """The number of images without outputs, of uint8 [N, C, H, W]."""
        return sum(content not in self._row for content in contents(images))

    def knows(self, images: Images) -> bool:
        return not self.unanswered(images)


def read_answers(path: Path, task: Task, channels: int, size: tuple[int, int]) -> StoredAnswers:
    """Read a CSV file with a column file_name, and the images that it names, in its folder or in folders below.

    The column ``prediction`` holds a class name or a scalar in its unit. Or one column per class, with its name, holds
    its probability. :func:`views_file` is read too, if it exists. Raises UserError, with the line, for a value that
    can't be used.
    """
    parts = [_read(file, task, channels, size) for file in (path, views_file(path)) if file == path or file.is_file()]
    images, outputs = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return StoredAnswers(images, outputs, str(path))


def views_file(path: Path) -> Path:
    """The predictions for the views on which students are trained, which belong to a file of predictions."""
    return path.parent / VIEWS / path.name


def _read(path: Path, task: Task, channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, C, H, W], and the teacher's outputs for them."""
    table = read_table(path).without_repeats()
    table.need(FILE)
    names = task.answer_names
    if names and set(names) <= set(table.columns):
        predictions = _probabilities(table, names)
    elif PREDICTION in table.columns:
        predictions = _predictions(table, task)
    else:
        classes = f", nor one for each class ({first_of(names)})" if names else ""
        raise UserError(f"{path}: has no column {PREDICTION!r}{classes}; columns found: {', '.join(table.columns)}")
    return load_alike(FilePictures(table.files()), channels, size, str(path))[:], task.from_answer(predictions)


def _predictions(table: Table, task: Task) -> Tensor:
    labels = []
    for row, text in enumerate(table.columns[PREDICTION]):
        try:
            labels.append(task.read_label(clean(text)))
        except ValueError as allowed:
            raise UserError(f"{table.place(row)}: {PREDICTION} {text!r} is not allowed; allowed: {allowed}") from None
    return task.right_answer(task.to_target(torch.tensor(labels, dtype=torch.float64)))


def _probabilities(table: Table, names: Sequence[str]) -> Tensor:
    rows = []
    for row, texts in enumerate(zip(*(table.columns[name] for name in names), strict=True)):
        values = [math.nan if (value := number(text)) is None else value for text in texts]
        for text, value in zip(texts, values, strict=True):
            if not 0.0 <= value <= 1.0:
                raise UserError(f"{table.place(row)}: {text!r} is not a probability; allowed: 0 to 1")
        if abs(sum(values) - 1.0) > ROUNDING:
            raise UserError(
                f"{table.place(row)}: the probabilities add up to {sum(values):.3g}; allowed: 1, within {ROUNDING:g}"
            )
        rows.append(values)
    probabilities = torch.tensor(rows, dtype=torch.float64)
    return (probabilities / probabilities.sum(dim=1, keepdim=True)).float()
