"""What labels seem to be: classes or counts, and whether they wrap. Each guess comes with a reason for the user."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from cgankd.data.labelling import read_column
from cgankd.data.listing import Listing

# Words in a column's name, and the period that they suggest where the labels reach around it.
CIRCULAR = re.compile(
    r"(?i)\b(angles?|yaw|azimuth|heading|bearing|direction|dir|orientation|rotation|phase|hue|winkel|richtung)\b"
)
HOURS = re.compile(r"(?i)\b(hours?|time|stunden?|uhrzeit)\b")
PADDED = re.compile(r"\s*[+-]?0[0-9]")
COVERED = 0.94  # of a period, that labels must reach over to seem to wrap
FEW_CLASSES = 12  # whole numbers of at most so many values are classes
EACH = 20  # images of each value, from which whole numbers are classes
ALONE = 5  # images of each value, below which they can hardly be classes


def period(listing: Listing, name: str) -> tuple[float, str] | None:
    """The period that labels seem to have, and why; None where they do not seem to wrap. name: of their column."""
    numbers = _numbers(listing)
    if numbers is None:
        return None
    words = re.sub(r"[_\W]+", " ", name)
    named, hours = CIRCULAR.search(words), HOURS.search(words)
    low, high = float(numbers.min()), float(numbers.max())
    rare = len(numbers) < EACH * len(np.unique(numbers))
    for length, applies in ((360.0, named or rare), (2.0 * math.pi, named), (24.0, hours)):
        step = 1.0 if length == 24.0 else 0.0  # whole hours end at 23
        if applies and _reach_around(low, high, length, step):
            unit = "" if length != 2.0 * math.pi else " (2 pi)"
            why = f"labels go from {low:g} to {high:g}, so their ends seem to be neighbours, {length:g}{unit} apart"
            return length, f"{why}; circular=null if not"
    return None


def half_turn(listing: Listing, name: str) -> str | None:
    """A hint, where angles reach over half a turn: those of lines and axes wrap there, others do not."""
    numbers = _numbers(listing)
    if numbers is None or not CIRCULAR.search(re.sub(r"[_\W]+", " ", name)):
        return None
    low, high = float(numbers.min()), float(numbers.max())
    if not _reach_around(low, high, 180.0):
        return None
    return f"labels go from {low:g} to {high:g}: if 0 and 180 are the same, as for lines, circular=180 says so"


def _reach_around(low: float, high: float, length: float, step: float = 0.0) -> bool:
    """Whether labels reach over a period that starts at 0, or has 0 in its middle."""
    starts = (0.0, -length / 2)
    inside = any(low >= start - 0.002 * length and high <= start + 1.002 * length for start in starts)
    return inside and high - low + step >= COVERED * length


def seem_counts(listing: Listing) -> str | None:
    """Why whole numbers seem to be counts, ages or grades, not classes; None where they do not.

    Numbers with zeros before them, such as 0042, are names.
    """
    numbers = _numbers(listing)
    if numbers is None or not bool((numbers == np.rint(numbers)).all()) or _padded(listing):
        return None
    distinct, counts = np.unique(numbers, return_counts=True)
    each = len(numbers) / len(distinct)
    uneven = len(distinct) < distinct[-1] - distinct[0] + 1 or counts.max() > 3 * counts.min()
    if len(distinct) <= FEW_CLASSES or each >= EACH or (each >= ALONE and not uneven):
        return None
    return (
        f"{len(distinct):,} different whole numbers with {each:.1f} images each seem to be amounts; "
        "task=classification if they are classes"
    )


def seem_row_numbers(listing: Listing) -> bool:
    """Whether labels count the images: whole, all different, without a gap, in order."""
    numbers = _numbers(listing)
    return numbers is not None and len(numbers) > 1 and bool((np.diff(numbers) == 1.0).all())


def _padded(listing: Listing) -> bool:
    return not isinstance(listing.labels, np.ndarray) and any(map(PADDED.match, listing.labels))


def _numbers(listing: Listing) -> np.ndarray | None:
    """The labels as numbers; None where some are not, or where they are surely classes."""
    if listing.task is not None or listing.folders or listing.class_names is not None:
        return None
    values: Sequence[float | None] = read_column(listing).values
    return None if None in values else np.asarray(values, dtype=np.float64)
