"""A table of image files, .csv, .jsonl or .parquet, with a column file_name: its columns by name, as text."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import Any

from cgankd.core.errors import UserError, first_of
from cgankd.core.files import endless
from cgankd.core.numbers import counted
from cgankd.core.paths import is_file
from cgankd.data import arrow_tables
from cgankd.data.image_files import UnusableImages
from cgankd.data.label_text import clean
from cgankd.data.listing import NoSuchColumn

FILE = "file_name"
USUAL = ("file", "filename", "image", "image_path", "path")  # other names of this column
FIRST = 20  # values of a column that show whether it names files
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of images that are in its folder or in sub-folders: its columns by name."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]  # the line on which each row ends
    unusable: Mapping[str, str] = dataclasses.field(default_factory=dict)  # column without text or numbers -> the error
    notes: tuple[str, ...] = ()
    counted: str = "line"  # what ``lines`` counts

    def place(self, row: int) -> str:
        """The file and line of a row, for messages."""
        return f"{self.path}, {self.counted} {self.lines[row]}"

    def need(self, column: str, hint: str = "") -> None:
        """UserError where the column is missing or unusable; ``hint``: which setting names it."""
        if column not in self.columns:
            further = f"; give the column of the images' files this name{self._likely()}" * (column == FILE)
            raise NoSuchColumn(
                f"{self.path}: has no column {column!r}{hint}; columns found: {', '.join(self.columns)}{further}"
            )
        if column in self.unusable:
            raise UserError(self.unusable[column])

    def files(self, missing_too: bool = False) -> list[Path]:
        """The files in column ``file_name``; UserError for a file that does not exist or is listed twice.

        missing_too: files that do not exist are returned as well.
        """
        if not self.lines:
            raise UserError(f"{self.path}: has no rows below its header; at least one per image is needed")
        rows: dict[str, int] = {}
        paths: list[Path] = []
        missing: list[int] = []
        twice: list[str] = []
        for row, name in enumerate(self.columns[FILE]):
            path = _inside(self.path.parent, name, self.place(row))
            if path is None and not missing_too:
                missing.append(row)
                continue
            path = path or self.path.parent / name
            same = os.path.normpath(path)
            if same in rows:
                twice.append(f"{name!r} ({self.counted}s {self.lines[rows[same]]} and {self.lines[row]})")
            rows[same] = row
            paths.append(path)
        if missing:
            raise UnusableImages(self._missing(missing))
        if twice:
            raise UserError(
                f"{self.path}: {counted(len(twice), 'file is', 'files are')} named twice, by rows that differ: "
                f"{first_of(twice)}; allowed: one row for each file"
            )
        return paths

    def without_repeats(self) -> Table:
        """The table without rows that repeat an earlier row in every column, and a note on them."""
        rows = list(zip(*(self.columns[name] for name in self.columns if name not in self.unusable), strict=True))
        first = {row: place for place, row in reversed(list(enumerate(rows)))}
        kept = [place for place, row in enumerate(rows) if first[row] == place]
        if self.unusable or len(kept) == len(rows):
            return self
        columns = {name: [values[place] for place in kept] for name, values in self.columns.items()}
        left = counted(len(rows) - len(kept), "row was", "rows were")
        note = f"{left} left out: the same as an earlier row of {self.path.name} in every column"
        lines = [self.lines[place] for place in kept]
        return dataclasses.replace(self, columns=columns, lines=lines, notes=(*self.notes, note))

    def with_file_column(self) -> Table:
        """The table with a column ``file_name``: the only one of another usual name, if its first value is a file."""
        usual = [name for name in self.columns if name.casefold() in USUAL]
        if FILE in self.columns or len(usual) != 1 or not self._is_file(usual[0], most=1):
            return self
        columns = {FILE if name == usual[0] else name: values for name, values in self.columns.items()}
        note = f"the column {usual[0]!r} of {self.path.name} was read as {FILE!r}, because it names files"
        return dataclasses.replace(self, columns=columns, notes=(*self.notes, note))

    def naming(self, images: Iterable[Path]) -> Table:
        """The table with a column ``file_name`` of paths to these images, relative to its folder.

        It is the only column whose first values all name one of them each: by path or by name, or else by name without
        suffix.
        """
        names, stems = dict[str, Path | None](), dict[str, Path | None]()  # None: of several images
        for path in images:
            for known, name in ((names, path.as_posix()), (names, path.name), (stems, path.stem)):
                known[name] = path if known.get(name, path) == path else None
        for known in (names, stems):
            columns = [FILE] if FILE in self.columns else list(self.columns)
            fit = [name for name in columns if self._all_in(known, name)]
            if fit:
                return self._named_by(fit[0], known) if len(fit) == 1 else self
        return self

    def _all_in(self, known: Mapping[str, Path | None], column: str) -> bool:
        """Whether the first values of a column are names of images."""
        first = self.columns[column][:FIRST]
        return bool(first) and all(_one_of(known, value) for value in first)

    def _named_by(self, column: str, known: Mapping[str, Path | None]) -> Table:
        """The table with this column as ``file_name``, and the paths that ``known`` has for its values."""
        values = [path.as_posix() if (path := _one_of(known, value)) else value for value in self.columns[column]]
        columns = {FILE if name == column else name: of for name, of in self.columns.items()} | {FILE: values}
        note = f"the column {column!r} of {self.path.name} was read as {FILE!r}, because it names images"
        return dataclasses.replace(self, columns=columns, notes=(*self.notes, *(note,) * (column != FILE)))

    def _likely(self) -> str:
        """Which columns may be the one that names files, for a message."""
        likely = [name for name in self.columns if self._is_file(name) or name.casefold() in USUAL]
        return f", instead of {first_of([repr(name) for name in likely], most=3)}" * bool(likely)

    def _is_file(self, column: str, most: int = FIRST) -> bool:
        """Whether one of the first values is a file in the table's folder."""
        return any(_found(self.path.parent, name) for name in self.columns[column][:most] if not _leaves(name))

    def _missing(self, rows: list[int]) -> str:
        names = self.columns[FILE]
        if len(rows) == 1:
            return f"{self.place(rows[0])}: file {names[rows[0]]!r} is not in {self.path.parent}"
        listed = first_of([f"{names[row]!r} ({self.counted} {self.lines[row]})" for row in rows])
        return f"{self.path}: {len(rows):,} of {len(names):,} files are not in {self.path.parent}: {listed}"


def read_table(path: Path) -> Table:
    """Read the .csv, .jsonl or .parquet file at ``path``; UserError that names the line, or for no rows."""
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path)
    try:
        if endless(path):
            raise UserError(f"{path}: is a pipe or a device; allowed: files")
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte {error.start} is not UTF-8; allowed: UTF-8 text, as Excel's 'CSV UTF-8'"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None
    if "\0" in text:  # in UTF-16 every second byte of a plain text is 0
        raise UserError(f"{path}: holds the byte 0 (letter {text.index(chr(0)):,}); allowed: UTF-8 text")
    return _from_json(path, text) if path.suffix.lower() == ".jsonl" else _from_csv(path, text)


def _from_csv(path: Path, text: str) -> Table:
    first, _, rest = text.partition("\n")
    skipped = 0
    if re.fullmatch(r"sep=.\r?", first):  # Excel's own line about the separator
        text, skipped = rest, 1
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num + skipped, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + skipped}: not readable as CSV: {error}") from None
    if not rows:
        raise UserError(f"{path}: is empty; the first line names the columns, {FILE!r} among them")
    header = [clean(name) for name in rows[0][1]]
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path}: column {name!r} is {header.count(name)} times in the header; allowed: once")
    for line, row in rows[1:]:
        if len(row) != len(header):
            hint = f"; a field with a {DELIMITERS[delimiter]} in it needs quotes around it" * (len(row) > len(header))
            raise UserError(
                f"{path}, line {line}: has {counted(len(row), 'field', 'fields')}; the header has {len(header)}{hint}"
            )
    columns = {name: [row[place].strip() for _, row in rows[1:]] for place, name in enumerate(header)}
    notes = (f"fields of {path.name} were separated at {DELIMITERS[delimiter]}s",) * (delimiter != ",")
    return Table(path, columns, [line for line, _ in rows[1:]], notes=notes)


def _delimiter(text: str) -> str:
    """The delimiter with which a column of the header names files; where none does, the most frequent one."""
    header = text.lstrip("\r\n").partition("\n")[0]
    for allowed in ((FILE,), USUAL):
        for delimiter in DELIMITERS:
            if any(name.strip().strip('"').casefold() in allowed for name in header.split(delimiter)):
                return delimiter
    return max(DELIMITERS, key=header.count)  # the comma where there is none


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys in order, also those that are there twice."""


def _from_json(path: Path, text: str) -> Table:
    rows: list[tuple[int, dict[str, Any]]] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:  # numbers stay text as they are written
            row = json.loads(content, parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {line}: not readable as JSON: {error}") from None
        if not isinstance(row, _Pairs):
            raise UserError(f"{path}, line {line}: is not a JSON object; allowed: lines such as {{{FILE!r}: ..., ...}}")
        keys = [clean(name) for name, _ in row]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{path}, line {line}: has the key {twice!r} twice; allowed: once")
        rows.append((line, {key: value for key, (_, value) in zip(keys, row, strict=True)}))
    if not rows:
        raise UserError(f"{path}: is empty; each line must be a JSON object with a key {FILE!r}")
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    columns = {name: [_as_text(row.get(name)) for _, row in rows] for name in names}
    nested = [name for _, row in rows for name, value in row.items() if isinstance(value, list)]
    return Table(path, columns, [line for line, _ in rows], {name: _neither(path, name) for name in nested})


def _neither(path: Path, column: str, holds: str = "lists or objects") -> str:
    return f"{path}: column {column!r} holds {holds}; allowed: text and numbers"


def _from_parquet(path: Path) -> Table:
    table = arrow_tables.read(path)
    import pyarrow  # here, because read() says what to install where it is missing

    columns: dict[str, list[str]] = {}
    unusable: dict[str, str] = {}
    for field in table.schema:
        name, kind = field.name, field.type
        if name in columns:
            raise UserError(f"{path}: has the column {name!r} twice; allowed: once")
        columns[name] = []
        if kind.num_fields:
            unusable[name] = _neither(path, name)
        elif pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            unusable[name] = _neither(path, name, "bytes")
        else:
            try:
                columns[name] = [_as_text(value) for value in arrow_tables.values(table, name, str(path))]
            except UserError as error:  # of no matter where no setting names the column
                unusable[name] = str(error)
    return Table(path, columns, list(range(table.num_rows)), unusable, counted="row")


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):  # of Parquet; as JSON it would have quotes
        return f"{value:f}"
    return value.strip() if isinstance(value, str) else json.dumps(value, default=str)


def _inside(folder: Path, name: str, where: str) -> Path | None:
    """The file ``name`` in ``folder``, None where it does not exist; UserError for names outside the folder."""
    if _leaves(name):
        raise UserError(f"{where}: {name!r} is outside the folder; allowed: paths inside {folder}")
    return _found(folder, name)


def _leaves(name: str) -> bool:
    """Whether the path is absolute, or leaves the folder from which it starts."""
    parts = PureWindowsPath(name)  # reads both kinds of slashes, and drives
    depth = 0
    for part in parts.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            break
    return bool(parts.anchor) or depth < 0


def _found(folder: Path, name: str) -> Path | None:
    return next((path for spelling in _spellings(name) if is_file(path := folder / spelling)), None)


def _one_of(known: Mapping[str, Path | None], name: str) -> Path | None:
    return next((path for spelling in _spellings(name) if (path := known.get(spelling))), None)


def _spellings(name: str) -> Iterable[str]:
    """A name as it is, with Windows' backslashes replaced, and with accents in both Unicode forms."""
    if name:
        for text in (name, name.replace("\\", "/")):
            yield from dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)))
