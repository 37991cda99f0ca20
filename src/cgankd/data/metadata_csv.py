"""A folder with metadata.csv: columns file_name, the label's, and perhaps split and a group's."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path, PureWindowsPath

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.image_files import FilePictures
from cgankd.data.listing import SPLIT_WORDS, TRAIN, Listing

NAME = "metadata.csv"
FILE, LABEL, SPLIT = "file_name", "label", "split"


def listing(folder: Path, settings: DataSettings) -> Listing:
    """The rows of ``folder``/metadata.csv in order.

    The label column is ``data.label_column`` ("label"), the group column ``data.group_column`` (none). Without a
    split column all rows are training. Raises UserError naming the line for anything that can't be used.
    """
    table = read_table(folder / NAME)
    label_column = settings.label_column or LABEL
    table.need(FILE)
    table.need(label_column, "data.label_column")
    if settings.group_column:
        table.need(settings.group_column, "data.group_column")
    columns, place, paths = table.columns, table.place, table.files()
    splits = [TRAIN] * len(paths)
    for row, word in enumerate(columns.get(SPLIT, [])):
        if word.lower() not in SPLIT_WORDS:
            raise UserError(f"{place(row)}: split {word!r} is not known; allowed: {', '.join(SPLIT_WORDS)}")
        splits[row] = SPLIT_WORDS[word.lower()]
    groups = None
    if settings.group_column:
        values = columns[settings.group_column]
        if "" in values:
            raise UserError(f"{place(values.index(''))}: {settings.group_column!r} is empty; every image needs one")
        groups = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return Listing(
        where=str(table.path),
        pictures=FilePictures(paths),
        labels=columns[label_column],
        splits=np.asarray(splits, dtype=np.int64),
        place=place,
        groups=groups,
    )


def columns(folder: Path) -> list[str]:
    """The names in the header of ``folder``/metadata.csv; none where there is no such file."""
    path = folder / NAME
    return list(read_table(path).columns) if path.is_file() else []


def read_table(path: Path) -> Table:
    """The CSV file at ``path``; UserError naming the line for what is not one, or has no row."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; allowed: UTF-8 text") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None
    if not rows:
        raise UserError(f"{path}: is empty; the first line names the columns, {FILE!r} among them")
    header = [name.strip() for name in rows[0][1]]
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}: column {name!r} stands {header.count(name)} times in the header; allowed: once")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: has {len(row)} fields; the header has {len(header)}")
    columns = {name: [row[place].strip() for _, row in rows[1:]] for place, name in enumerate(header)}
    return Table(path, columns, [line for line, _ in rows[1:]])


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file about images that lie beside it, or in folders below: its columns by name, row by row."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]  # that each row ends on

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def need(self, column: str, setting: str = "") -> None:
        """UserError where the column is missing; ``setting`` names it."""
        if column not in self.columns:
            hint = f" ({setting} names another)" if setting else ""
            raise UserError(f"{self.path}: has no column {column!r}{hint}; columns found: {', '.join(self.columns)}")

    def files(self) -> list[Path]:
        """The files that column ``file_name`` names; UserError for one that is not there, or stands twice."""
        if not self.lines:
            raise UserError(f"{self.path}: has no rows below its header; at least one per image is needed")
        paths: dict[Path, int] = {}
        for row, name in enumerate(self.columns[FILE]):
            path = _inside(self.path.parent, name, self.place(row))
            if path in paths:
                raise UserError(
                    f"{self.place(row)}: {name!r} stands on line {self.lines[paths[path]]} already; allowed: once"
                )
            paths[path] = row
        return list(paths)


def _inside(folder: Path, name: str, where: str) -> Path:
    """The file ``name`` of ``folder``; refuses names that lead out of it, on any operating system."""
    parts = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    depth = 0
    for part in parts.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            break
    if parts.anchor or depth < 0:
        raise UserError(f"{where}: {name!r} leads out of the folder; allowed: paths inside {folder}")
    path = folder / name
    try:
        found = bool(name) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found:
        raise UserError(f"{where}: file {name!r} is not in {folder}")
    return path
