"""Which column of a table holds the label, where no column is named ``label``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from cgankd.core.errors import UserError
from cgankd.core.numbers import number
from cgankd.data.label_text import COMMA

# Words in the names of columns that hold labels.
LABELS = {
    "label", "labels", "class", "classes", "category", "target", "targets", "y", "count", "counts", "age", "ages",
    "angle", "angles", "steering", "yaw", "azimuth", "heading", "bearing", "orientation", "rotation", "score", "grade",
    "rating", "diagnosis", "species", "breed",
}  # fmt: skip
# Words in the names of columns that hold numbers, but hardly labels.
FACTS = {
    "id", "ids", "index", "idx", "row", "nr", "time", "timestamp", "date", "width", "height", "size", "x", "y", "w",
    "h",
}  # fmt: skip


def label_column(source: str, columns: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The column that holds the label, and why; UserError where none, or more than one, may do so.

    columns: those that may hold it, by name, with their values as text, or the first ones of them.
    """
    if len(columns) == 1:
        return next(iter(columns)), "the only column that can hold labels"
    coordinates = {"x", "y"} <= {name.casefold() for name in columns}
    named = [name for name in columns if _words(name) & LABELS and not (coordinates and name.casefold() == "y")]
    if len(named) == 1:
        return named[0], f"its name says so{_others(columns, named[0])}"
    numeric = [name for name, values in columns.items() if _numeric(values) and not _words(name) & FACTS]
    if not named and len(numeric) == 1:
        return numeric[0], f"the only column of numbers{_others(columns, numeric[0])}"
    shown = ", ".join(f"{name} (such as {values[0]!r})" if values else name for name, values in columns.items())
    example = next(iter([*named, *numeric, *columns]), "NAME")
    raise UserError(
        f"{source}: its table has no column 'label', and it is not clear which one holds the label: {shown}; needed: "
        f"its name, such as label_column={shlex.quote(example)}"
    )


def _words(name: str) -> set[str]:
    """
    >>> sorted(_words("steering_angle (deg)")), sorted(_words("classId2"))
    (['angle', 'deg', 'steering'], ['class', 'id'])
    """
    return set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()))


def _others(columns: Mapping[str, Sequence[str]], chosen: str) -> str:
    others = [name for name in columns if name != chosen]
    return f"; other columns: {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"


def _numeric(values: Sequence[str]) -> bool:
    return bool(values) and all(number(value) is not None or COMMA.fullmatch(value) for value in values)
