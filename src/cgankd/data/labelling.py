"""What a source's labels are: classes or scalars, and the task that follows.

Words and whole numbers are classes, decimals are scalars; ``data.task`` overrides. How they were read is told.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.listing import TRAIN, Ints, Listing
from cgankd.tasks import Classification, Regression, Task

WHOLE = re.compile(r"[+-]?\d+")


def read_labels(
    listing: Listing, settings: DataSettings
) -> tuple[npt.NDArray[Any], tuple[str, ...] | None, tuple[str, ...]]:
    """Labels [N] as int64 classes with their names, or as float32 scalars with None; and notes.

    Raises UserError naming file and row for a label that is missing, not finite, not a number where numbers are
    needed, outside ``data.label_range``, or a class that has no training image.
    """
    fixed = listing.task
    if fixed is not None:
        if settings.task not in ("auto", fixed.name) or settings.label_range is not None:
            raise UserError(f"{listing.where} is {fixed.name}; data.task and data.label_range can't change that")
        names = fixed.class_names if isinstance(fixed, Classification) else None
        return np.asarray(listing.labels), names, ()
    kind, reason = _kind(listing)
    chosen = settings.task
    if chosen == "regression" or (chosen == "auto" and kind != "classification"):
        scalars = _scalars(listing)
        _check_range(scalars, listing, settings)
        told = f"labels were read as scalars ({reason})"
        if chosen == "auto" and bool((scalars == np.rint(scalars)).all()):
            told += "; data.task=classification reads them as classes"
        return scalars, None, (told,)
    if settings.label_range is not None:
        raise UserError(
            f"{listing.where}: data.label_range is set, but labels were read as classes ({reason}); "
            "data.task=regression reads them as scalars"
        )
    values, names, notes = _classes(listing)
    told = f"labels were read as {len(names)} classes ({reason})"
    if chosen == "auto" and reason == "whole numbers":
        told += "; data.task=regression reads them as scalars"
    return values, names, (told, *notes)


def make_task(
    names: tuple[str, ...] | None,
    labels: npt.NDArray[Any],
    training: Ints,
    listing: Listing,
    settings: DataSettings,
) -> tuple[Task, tuple[str, ...]]:
    """The task, and notes. training: rows that the source trains on, with what validation took."""
    if listing.task is not None:
        return listing.task, ()
    if names is not None:
        return Classification(names), ()
    if settings.label_range is not None:
        return Regression(*settings.label_range, settings.unit), ()
    low, high = float(labels[training].min()), float(labels[training].max())
    if low == high:
        raise UserError(f"{listing.where}: every training label is {low:g}; at least two distinct ones are needed")
    outside = int(((labels < low) | (labels > high)).sum())
    note = f"{outside:,} labels outside training lie beyond its range {low:g} to {high:g}, which predictions keep to"
    return Regression(low, high, settings.unit), (note,) * (outside > 0)


def _kind(listing: Listing) -> tuple[str, str]:
    """What the labels look like ("mixed": words and decimals), and why."""
    if listing.folders:
        return "classification", "names of folders"
    if isinstance(listing.labels, np.ndarray):
        if listing.labels.dtype.kind == "f":
            return "regression", "decimals"
        return "classification", "whole numbers"
    words = decimals = None
    for row, text in enumerate(listing.labels):
        if not text.strip():
            raise UserError(f"{listing.place(row)}: the label is empty; allowed: a number or a class name")
        if WHOLE.fullmatch(text.strip()):
            continue
        if _number(text) is None:
            words = row if words is None else words
        else:
            decimals = row if decimals is None else decimals
    if words is not None:
        return ("mixed" if decimals is not None else "classification"), "words"
    return ("regression", "decimals") if decimals is not None else ("classification", "whole numbers")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _scalars(listing: Listing) -> npt.NDArray[np.float32]:
    if isinstance(listing.labels, np.ndarray):
        values = listing.labels.astype(np.float64)
    else:
        numbers = [_number(text) for text in listing.labels]
        if None in numbers:
            row = numbers.index(None)
            raise UserError(
                f"{listing.place(row)}: label {listing.labels[row]!r} is not a number; allowed: numbers, "
                "or data.task=classification for class names"
            )
        values = np.asarray(numbers, dtype=np.float64)
    with np.errstate(over="ignore"):
        scalars = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scalars))
    if len(bad):
        raise UserError(f"{listing.place(int(bad[0]))}: label {values[bad[0]]} is not allowed; finite numbers are")
    return scalars


def _check_range(values: npt.NDArray[np.float32], listing: Listing, settings: DataSettings) -> None:
    if settings.label_range is None:
        return
    low, high = settings.label_range
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"data.label_range is {low:g} to {high:g}; allowed: two finite numbers, the lower first")
    bad = np.flatnonzero((values < np.float32(low)) | (values > np.float32(high)))
    if len(bad):
        raise UserError(
            f"{listing.place(int(bad[0]))}: label {values[bad[0]]:g} is outside data.label_range, {low:g} to {high:g}"
        )


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
            f"{listing.place(row)}: class {str(raw[row])!r} has no training image; allowed: classes that do"
        )
    names = tuple(str(value) for value in values)
    notes: tuple[str, ...] = ()
    if listing.class_names is not None:
        known = len(listing.class_names)
        bad = np.flatnonzero((raw < 0) | (raw >= known))
        if len(bad):
            row = int(bad[0])
            raise UserError(f"{listing.place(row)}: label {raw[row]} is outside class_names; allowed: 0 to {known - 1}")
        names = tuple(listing.class_names[value] for value in values)
        if len(values) < known:
            notes = (f"{known - len(values)} of {known} class_names have no training image and were left out",)
    return labels.astype(np.int64), names, notes


def _comparable(listing: Listing) -> npt.NDArray[Any]:
    """Labels [N] as int64 or text, which sort as a reader expects (2 before 10)."""
    if not isinstance(listing.labels, np.ndarray):
        texts = [text.strip() for text in listing.labels]
        if not listing.folders and all(WHOLE.fullmatch(text) for text in texts):
            return _int64([int(text) for text in texts], listing)
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
    except OverflowError:
        raise UserError(f"{listing.where}: a label is beyond 64 bits; allowed: whole numbers below 2**63") from None
