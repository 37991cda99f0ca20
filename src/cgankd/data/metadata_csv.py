"""A folder with metadata.csv: columns file_name, the label's, and perhaps split and a group's."""

from __future__ import annotations

import csv
from pathlib import Path, PureWindowsPath

import numpy as np

from cgankd.data.image_files import FilePictures
from cgankd.data.listing import SPLIT_WORDS, TRAIN, Listing
from cgankd.errors import UserError
from cgankd.settings import DataSettings

NAME = "metadata.csv"
FILE, LABEL, SPLIT = "file_name", "label", "split"


def listing(folder: Path, settings: DataSettings) -> Listing:
    """The rows of ``folder``/metadata.csv in order.

    The label column is ``data.label_column`` ("label"), the group column ``data.group_column`` (none). Without a
    split column all rows are training. Raises UserError naming the line for anything that can't be used.
    """
    table = folder / NAME
    header, rows = _read(table)
    label_column = settings.label_column or LABEL
    wanted = [FILE, label_column] + ([settings.group_column] if settings.group_column else [])
    for name in wanted:
        if name not in header:
            setting = {label_column: "data.label_column", settings.group_column: "data.group_column"}.get(name)
            hint = f" ({setting} names another)" if setting else ""
            raise UserError(f"{table}: has no column {name!r}{hint}; columns found: {', '.join(header)}")
    lines = [line for line, _ in rows]
    columns = {name: [row[place].strip() for _, row in rows] for place, name in enumerate(header)}

    def place(row: int) -> str:
        return f"{table}, line {lines[row]}"

    if not rows:
        raise UserError(f"{table}: has no rows below its header; at least one per image is needed")
    paths: dict[Path, int] = {}
    for row, name in enumerate(columns[FILE]):
        path = _inside(folder, name, place(row))
        if path in paths:
            raise UserError(f"{place(row)}: {name!r} stands on line {lines[paths[path]]} already; allowed: once")
        paths[path] = row
    splits = [TRAIN] * len(rows)
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
        where=str(table),
        pictures=FilePictures(list(paths)),
        labels=columns[label_column],
        splits=np.asarray(splits, dtype=np.int64),
        place=place,
        groups=groups,
    )


def columns(folder: Path) -> list[str]:
    """The names in the header of ``folder``/metadata.csv; none where there is no such file."""
    table = folder / NAME
    return _read(table)[0] if table.is_file() else []


def _read(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with the line it ends on."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f"{table}: byte {error.start} is not UTF-8; allowed: UTF-8 text") from None
    except csv.Error as error:
        raise UserError(f"{table}, line {reader.line_num}: not readable as CSV: {error}") from None
    except OSError as error:
        raise UserError(f"{table}: not readable: {error.strerror}") from None
    if not rows:
        raise UserError(f"{table}: is empty; the first line names the columns, {FILE!r} among them")
    header = [name.strip() for name in rows[0][1]]
    for name in header:
        if header.count(name) > 1:
            raise UserError(
                f"{table}: column {name!r} stands {header.count(name)} times in the header; allowed: once"
            )
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UserError(f"{table}, line {line}: has {len(row)} fields; the header has {len(header)}")
    return header, rows[1:]


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
