"""Whether a source's labels are classes or scalars, and the resulting task.

Words and whole numbers are classes, decimals are scalars, unless ``data.task`` says otherwise. A note says how they
were read.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.numbers import WHOLE, counted, distinct_texts
from cgankd.data import label_text
from cgankd.data.image_files import EncodedPictures, UnusableImages
from cgankd.data.listing import TRAIN, Ints, Listing
from cgankd.tasks import CircularRegression, Classification, Regression, Task
from cgankd.tasks.regression import fits_float32


class Labels(NamedTuple):
    """Labels as they were read.

    values: int64 [N] classes, or scalars [N], float64 until :func:`make_task` rounds them. names: the classes' names;
    None for scalars. notes: how labels were read. unit: the text after every scalar.
    """

    values: npt.NDArray[Any]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]
    unit: str = ""


def read_labels(listing: Listing, settings: DataSettings) -> Labels:
    """The source's labels as classes or scalars.

    Raises UserError naming file and row for a label that is missing, not finite, not a number where numbers are
    needed, outside ``data.label_range``, or a class that has no training image; and where it is not clear whether
    labels are numbers or names.
    """
    if not len(listing.splits):
        raise UserError(f"{listing.where}: holds no images; at least 10 for training are needed")
    fixed = listing.task
    if fixed is not None:
        if settings.task not in ("auto", fixed.name) or settings.label_range or settings.circular:
            raise UserError(
                f"{listing.where} is {fixed.name}; data.task, data.label_range and data.circular can't change that"
            )
        return Labels(np.asarray(listing.labels), fixed.answer_names or None, ())
    column, chosen = read_column(listing), settings.task
    if chosen == "auto" and settings.circular is None and column.kind == "unclear":
        raise label_text.question(column, _texts(listing), listing.place)
    if chosen == "auto" and settings.circular is None and column.kind == "odd":
        raise label_text.odd_labels(column, _texts(listing), listing.place)
    if settings.circular is not None:
        return _read_circular(column, listing, settings, settings.circular)
    if chosen == "regression" or (chosen == "auto" and column.kind != "classification"):
        return _read_scalars(column, listing, settings)
    if settings.label_range is not None:
        raise UserError(
            f"{listing.where}: data.label_range is set, but labels were read as classes ({column.why}); "
            "data.task=regression reads them as scalars"
        )
    values, names, notes = _classes(listing)
    note = f"labels were read as {counted(len(names), 'class', 'classes')} ({column.why})"
    if chosen == "auto" and listing.class_names is None and None not in column.values:
        note += "; data.task=regression reads them as scalars"
    return Labels(values, names, (note, *column.notes * (column.why == "words"), *notes))


def _read_scalars(column: label_text.Column, listing: Listing, settings: DataSettings) -> Labels:
    scalars = _scalars(column, listing)
    _check_range(scalars, listing, settings)
    note = f"labels were read as scalars ({column.why})"
    if settings.task == "auto" and bool((scalars == np.rint(scalars)).all()):
        note += "; data.task=classification reads them as classes"
    return Labels(scalars, None, (note, *column.notes), column.unit)


def _read_circular(column: label_text.Column, listing: Listing, settings: DataSettings, period: float) -> Labels:
    """Scalars in [0, period); labels of other turns become those of the first."""
    if settings.task == "classification" or settings.label_range is not None:
        other = "data.task=classification" if settings.label_range is None else "data.label_range"
        raise UserError(f"{listing.where}: data.circular={period:g} and {other} are both set; allowed: one of them")
    exact = _scalars(column, listing)
    scalars = np.remainder(exact, period).astype(np.float32)
    scalars[scalars >= np.float32(period)] = 0.0  # rounding gives the period for a label just below 0
    turned = int(((exact < 0.0) | (exact >= period)).sum())
    notes = (
        f"labels were read as scalars that wrap at {period:g} ({column.why})",
        f"{counted(turned, 'label', 'labels')} outside 0 to {period:g} became the same point of the circle inside it"
        * (turned > 0),
    )
    return Labels(scalars, None, (*filter(None, notes), *column.notes), column.unit)


def merged(labels: Labels, task: Task) -> tuple[str, ...]:
    """A note where different labels are equal as a network's float32 target, because their range is much wider."""
    if labels.values.dtype != np.float64:
        return ()
    distinct = len(np.unique(labels.values))
    left = len(task.to_target(torch.from_numpy(labels.values)).unique())
    ends = " to ".join(distinct_texts(task.deployed_facts["range"]))
    note = f"a network can only distinguish {left:,} of {distinct:,} distinct labels, because their range is {ends}"
    return (note,) * (left < 0.99 * distinct)


def make_task(
    labels: Labels, training: Ints, listing: Listing, settings: DataSettings
) -> tuple[Task, npt.NDArray[Any], tuple[str, ...]]:
    """The task, the labels as it has them, and notes.

    training: the rows of the source's training split, with those taken for validation. Scalars become float32 if that
    is precise enough for the range of these rows; one label far away in another split must not decide it.
    """
    if listing.task is not None:
        return listing.task, labels.values, ()
    if labels.names is not None:
        return Classification(labels.names), labels.values, ()
    exact, unit = labels.values, settings.unit or labels.unit
    if settings.circular is not None:
        return CircularRegression(high=settings.circular, unit=unit), exact, ()
    low, high = settings.label_range or (float(exact[training].min()), float(exact[training].max()))
    values = exact.astype(np.float32 if fits_float32(low, high) else np.float64)
    if settings.label_range is not None:
        return Regression(low, high, unit), values, ()
    low, high = float(values[training].min()), float(values[training].max())
    if low == high:
        raise UserError(f"{listing.where}: every training label is {low:g}; at least two distinct ones are needed")
    outside = int(((values < low) | (values > high)).sum())
    ends = " to ".join(distinct_texts([low, high]))
    are = counted(outside, "validation or test label is", "validation or test labels are")
    note = f"{are} outside the training range {ends}; predictions stay inside it"
    return Regression(low, high, unit), values, (note,) * (outside > 0)


def read_column(listing: Listing) -> label_text.Column:
    """How the labels were read."""
    if rows := unlabelled(listing):
        raise UnusableImages(str(label_text.no_label(rows, listing.place)))
    if isinstance(listing.labels, np.ndarray):
        values = listing.labels.tolist()
        if listing.class_names is not None:
            return label_text.Column(values, "classification", "names in class_names")
        if listing.labels.dtype.kind == "f":
            return label_text.Column(values, "regression", "decimals")
        return label_text.Column(values, "classification", "whole numbers")
    column = label_text.read(_texts(listing), listing.place)
    if listing.folders:
        return dataclasses.replace(column, kind="classification", why="names of folders")
    return column


def unlabelled(listing: Listing) -> list[int]:
    """The rows with an empty label that ``data.skip_bad`` leaves out: not those of arrays and of class folders."""
    if isinstance(listing.labels, np.ma.MaskedArray):
        return np.flatnonzero(np.ma.getmaskarray(listing.labels)).tolist()
    if isinstance(listing.labels, np.ndarray) or listing.folders or not isinstance(listing.pictures, EncodedPictures):
        return []
    return [row for row, text in enumerate(_texts(listing)) if not text]


def _texts(listing: Listing) -> list[str]:
    return [label_text.clean(text) for text in listing.labels]


def _scalars(column: label_text.Column, listing: Listing) -> npt.NDArray[np.float64]:
    """The labels as numbers, without loss of precision."""
    if not isinstance(listing.labels, np.ndarray) and None in column.values:
        row = column.values.index(None)
        raise label_text.not_a_number(_texts(listing)[row], listing.place(row), column)
    values = np.asarray(column.values, dtype=np.float64)
    bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max))
    if len(bad):
        raise UserError(
            f"{listing.place(int(bad[0]))}: label {values[bad[0]]} is not finite in float32; allowed: finite numbers"
        )
    return values


def _check_range(exact: npt.NDArray[np.float64], listing: Listing, settings: DataSettings) -> None:
    if settings.label_range is None:
        return
    low, high = settings.label_range
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"data.label_range is {low:g} to {high:g}; allowed: two finite numbers, the lower first")
    precision = np.float32 if fits_float32(low, high) else np.float64
    values = exact.astype(precision)  # a label 0.7 from float32 is not above an end of 0.7
    bad = np.flatnonzero((values < precision(low)) | (values > precision(high)))
    if len(bad):
        label, *ends = distinct_texts([float(values[bad[0]]), low, high])
        raise UserError(f"{listing.place(int(bad[0]))}: label {label} is outside data.label_range, {' to '.join(ends)}")


def _classes(listing: Listing) -> tuple[Ints, tuple[str, ...], tuple[str, ...]]:
    raw = _comparable(listing)
    values = np.unique(raw[listing.splits == TRAIN])
    if len(values) < 2:
        raise UserError(f"{listing.where}: {len(values)} distinct training label; at least two are needed")
    labels = np.searchsorted(values, raw).clip(0, len(values) - 1)
    unknown = np.flatnonzero(values[labels] != raw)
    if len(unknown):
        row = int(unknown[0])
        raise UserError(
            f"{listing.place(row)}: class {str(raw[row])!r} has no training image; allowed: classes that have some"
        )
    names = tuple(str(value) for value in values)
    notes = label_text.look_alikes(names)
    if listing.class_names is not None:
        _check_class_names(listing.class_names, listing.where)
        if raw.dtype.kind == "U":
            raise UserError(
                f"{listing.where}: labels are text, but class_names names classes that have numbers; allowed: labels "
                "as whole numbers, or no class_names"
            )
        known = len(listing.class_names)
        bad = np.flatnonzero((raw < 0) | (raw >= known))
        if len(bad):
            row = int(bad[0])
            raise UserError(f"{listing.place(row)}: label {raw[row]} is outside class_names; allowed: 0 to {known - 1}")
        names = tuple(listing.class_names[value] for value in values)
        if len(values) < known:
            notes = (f"{known - len(values)} of {known} class_names have no training image and were left out",)
    return labels.astype(np.int64), names, notes


def _check_class_names(names: tuple[str, ...], where: str) -> None:
    if not all(name.strip() for name in names):
        raise UserError(f"{where}: 'class_names' holds an empty name; allowed: text")
    if len(set(names)) != len(names):
        raise UserError(f"{where}: 'class_names' holds a name twice; allowed: distinct names")


def _comparable(listing: Listing) -> npt.NDArray[Any]:
    """Labels [N] as int64 or text, sorted as a reader expects (2 before 10)."""
    if not isinstance(listing.labels, np.ndarray):
        texts = _texts(listing)
        if not listing.folders and all(WHOLE.fullmatch(text) for text in texts):
            return _int64(texts, listing)
        return np.asarray(texts)
    if listing.labels.dtype.kind == "f":
        bad = np.flatnonzero(listing.labels != np.rint(listing.labels))  # NaN too; infinity is caught below
        bad = bad if len(bad) else np.flatnonzero(np.isinf(listing.labels))
        if len(bad):
            row = int(bad[0])
            raise UserError(
                f"{listing.place(row)}: label {listing.labels[row]:g} is not a class; allowed: whole numbers, "
                "or data.task=regression"
            )
    return _int64(listing.labels.tolist(), listing)


def _int64(values: list[Any], listing: Listing) -> Ints:
    try:
        return np.asarray([int(value) for value in values], dtype=np.int64)
    except (OverflowError, ValueError):  # ValueError: Python reads no text of more than 4,300 digits
        raise UserError(f"{listing.where}: a label exceeds 64 bits; allowed: whole numbers below 2**63") from None
