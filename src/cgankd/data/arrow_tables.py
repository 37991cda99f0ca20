"""Tables with encoded images in a column, as Hugging Face stores them: Parquet files, and data sets of its hub.

The column of images holds {bytes, path}, or bytes; a label column holds classes by number (ClassLabel), text or
numbers. Images stay encoded until they are needed.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import io
import itertools
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cgankd.config.settings import DataSettings
from cgankd.core import extras
from cgankd.core.errors import UserError, said
from cgankd.data.image_files import EncodedPictures, Unusable
from cgankd.data.listing import TRAIN, Ints, Listing, NoSuchColumn
from cgankd.data.split_names import ALLOWED, split_of, splits_of_files

NEARBY = 1024  # rows that threads read at the same time, at most
IMAGE, LABEL, SPLIT = "image", "label", "split"
GROUP_HINT = ", which data.group_column names"  # for the error about a missing column
_SHARD = re.compile(r"(-of-\d+|-[0-9a-f]{8,})+$")  # train-00000-of-00004, train-00000-of-00001-0a1b2c3d4e5f6789


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One table: a shard or a split. where: its file or split, for messages. classes: of columns with class numbers.

    paths: whether images may be files that cells name; a table from elsewhere must not choose files of this machine.
    file: that the table was read from; None: of a library. images: the column that stays there.
    """

    split: int
    table: Any  # pyarrow.Table; without the column of images where these stay in the file
    where: str
    classes: Mapping[str, tuple[str, ...]]
    paths: bool = False
    file: Path | None = None
    images: RowGroups | None = None

    @property
    def fields(self) -> list[Any]:
        """Of the schema: name and type of each column."""
        fields = list(self.table.schema)
        if self.images is not None:
            fields.insert(self.images.place, self.images.field)
        return fields

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    def column(self, name: str) -> Any:
        """The values of the column of images, by row."""
        return self.table.column(name) if self.images is None else self.images


class RowGroups:
    """A column of a Parquet file, read by groups of rows where it is indexed; the last ones stay in memory."""

    def __init__(self, path: Path, field: Any, place: int, ends: Sequence[int]) -> None:
        """field: of the schema, at ``place``. ends: of each group, the number of rows in it and before it."""
        self.field, self.place, self._path, self._ends = field, place, path, ends
        kept = 2 + NEARBY * len(ends) // max(1, max(ends, default=1))
        self._group, self._lock = functools.lru_cache(kept)(self._read), threading.Lock()

    def __getitem__(self, row: int) -> Any:
        group = bisect.bisect_right(self._ends, row)
        with self._lock:  # so that threads do not read the same group
            values = self._group(group)
        return values[row - (self._ends[group - 1] if group else 0)]

    @functools.cached_property
    def paths(self) -> Any:
        """The file names beside the images, as a column of {path}; None where there are none."""
        parquet = library("pyarrow.parquet", str(self._path))
        try:
            return parquet.ParquetFile(self._path).read([f"{self.field.name}.path"]).column(self.field.name)
        except Exception:  # no such field; of a broken file, reading the images says why
            return None

    def _read(self, group: int) -> Any:
        with _opened(self._path) as file:
            return file.read_row_group(group, [self.field.name]).column(self.field.name)


@dataclasses.dataclass(frozen=True)
class Cell:
    """An encoded image: a cell of a column of {bytes, path} or of bytes."""

    column: Any  # pyarrow.ChunkedArray, or RowGroups
    row: int
    where: str
    paths: bool
    file: Path | None

    def __str__(self) -> str:
        return f"{self.where}, row {self.row}"

    @property
    def name(self) -> str:
        """Its place, with the file name that is beside the bytes, if there is one."""
        column = self.column.paths if isinstance(self.column, RowGroups) else self.column
        try:
            path = column[self.row]["path"].as_py()
        except (KeyError, TypeError):  # bytes alone
            return str(self)
        return f"{self.where}, {Path(path).name if Path(path).is_absolute() else path}" if path else str(self)

    def open(self) -> Path | io.BytesIO:
        value = self.column[self.row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is not None:
            return io.BytesIO(content)
        if self.paths and isinstance(value, dict) and value.get("path"):
            return Path(value["path"])
        raise Unusable(self, "holds no image", "allowed: the bytes of an image in each row")


def library(name: str, source: str) -> Any:
    """pyarrow.parquet, webdataset or datasets; UserError where it can't be imported."""
    return extras.opened(name, source, "hub")  # of data.source, data.unlabelled or generator.source


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A pyarrow.parquet.ParquetFile; UserError where it can't be read, also in the block."""
    parquet = library("pyarrow.parquet", str(path))
    try:
        yield parquet.ParquetFile(path)  # not read_table, which takes columns from folders' names such as a=1
    except Exception as error:  # pyarrow raises errors of several kinds for broken files
        raise UserError(f"{path}: not readable as Parquet: {said(error)}") from None


def read(path: Path) -> Any:
    """A Parquet file as a pyarrow table; UserError where it can't be read."""
    with _opened(path) as file:
        return file.read()


def _read_part(path: Path, split: int, settings: DataSettings) -> Part:
    """A Parquet file without its images, which are read when they are needed."""
    with _opened(path) as file:
        schema, groups = file.schema_arrow, file.metadata
        fields = [field for field in schema if _holds_images(field.type)]
        chosen = [field for field in fields if field.name == IMAGE] or fields
        alone = len(chosen) == 1 and schema.names.count(chosen[0].name) == 1
        if not alone or chosen[0].name in (settings.label_column or LABEL, settings.group_column, SPLIT):
            return Part(split, file.read(), str(path), _classes_of(schema), file=path)
        table = file.read([name for name in schema.names if name != chosen[0].name])
        ends = list(itertools.accumulate(groups.row_group(number).num_rows for number in range(groups.num_row_groups)))
    images = RowGroups(path, chosen[0], schema.names.index(chosen[0].name), ends)
    return Part(split, table, str(path), _classes_of(schema), file=path, images=images)


def values(table: Any, column: str, where: str) -> list[Any]:
    """The values of a pyarrow table's column; UserError, which begins with ``where``, if they can't be read."""
    try:
        return table.column(column).to_pylist()
    except UnicodeDecodeError:
        raise UserError(f"{where}: column {column!r} holds text that is not UTF-8; allowed: UTF-8 text") from None
    except Exception as error:  # such as a time that no calendar has
        raise UserError(f"{where}: column {column!r} can't be read: {said(error)}") from None


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file that hold no images."""
    parquet = library("pyarrow.parquet", str(path))
    try:
        schema = parquet.read_schema(path)
    except Exception:  # reading the images says why
        return []
    return [field.name for field in schema if not _holds_images(field.type)]


def first_values(path: Path, names: Sequence[str], most: int) -> dict[str, list[str]]:
    """The first values, as text, of some columns of a Parquet file that holds rows, by column."""
    with _opened(path) as file:
        rows = next(file.iter_batches(batch_size=most, columns=list(names)), None)
    return {name: [] if rows is None else [str(value) for value in values(rows, name, str(path))] for name in names}


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder and of the folders below it, without tables of image files and hidden ones."""
    paths = sorted(path for path in folder.rglob("*.parquet") if path.name != "metadata.parquet")
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def parquet_listing(source: Path, paths: Sequence[Path], settings: DataSettings) -> Listing:
    """The rows of Parquet files, in order. Splits come from the names of files (train-00000-of-00002.parquet), else
    from those of their folders, else from a column ``split``; else all rows are training.

    Raises UserError that names the file, and the row or column, for anything that can't be used.
    """
    splits = splits_of_files(paths, [_split_of_file(path, source) if source.is_dir() else None for path in paths])
    homes = {path.parent for path in paths if split_of(path.parent.name) is None}
    if len(homes) > 1:
        names = ", ".join(str(home) for home in sorted(homes)[:4])
        raise UserError(f"{source}: has Parquet files in several folders ({names}); allowed: one of them")
    parts = [_read_part(path, split, settings) for path, split in zip(paths, splits, strict=True)]
    return listing(str(source), parts, settings)


def listing(source: str, parts: Sequence[Part], settings: DataSettings) -> Listing:
    """All rows of the parts. Raises UserError as :func:`parquet_listing`."""
    image, label = _image_column(parts[0]), settings.label_column or LABEL
    for part in parts:
        _need(part, image, "")
        _need(part, label, label_hint(settings))
        if settings.group_column is not None:
            _need(part, settings.group_column, GROUP_HINT)
    labelled = [part for part in parts if not _without_labels(part, label)]
    left = [part.where for part in parts if part not in labelled]
    if not labelled:
        raise UserError(f"{source}: column {label!r} holds no label in any row")
    sizes = [part.table.num_rows for part in labelled]
    starts = np.cumsum([0, *sizes])

    def place(row: int) -> str:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{labelled[number].where}, row {row - starts[number]}"

    groups = None
    if settings.group_column is not None:
        column = settings.group_column
        members = [value for part in labelled for value in values(part.table, column, part.where)]
        if None in members:
            raise UserError(f"{place(members.index(None))}: {column!r} is empty; every image needs one")
        # 7 and 7.0, of shards with columns of several types, are one group
        texts = [str(int(m) if isinstance(m, float) and m.is_integer() else m) for m in members]
        groups = np.unique(texts, return_inverse=True)[1].astype(np.int64)
    classes = labelled[0].classes.get(label)
    used = {image, label, settings.group_column, SPLIT}
    unused = [name for name in labelled[0].names if name not in used]
    notes = (
        f"without labels, and left out: {', '.join(left)}" * bool(left),
        f"columns that were not used: {', '.join(unused)}" * bool(unused),
    )
    return Listing(
        where=source,
        pictures=_pictures(labelled, image),
        labels=_labels(labelled, label),
        splits=_splits(labelled, np.repeat([part.split for part in labelled], sizes).astype(np.int64), place),
        place=place,
        groups=groups,
        class_names=classes,
        notes=tuple(filter(None, notes)),
    )


def pictures(parts: Sequence[Part]) -> EncodedPictures:
    """All images of the parts, whether they have labels or not; UserError where it is unclear which column they are."""
    image = _image_column(parts[0])
    for part in parts:
        _need(part, image, "")
    return _pictures(parts, image)


def parquet_pictures(paths: Sequence[Path]) -> EncodedPictures:
    """All images of Parquet files, whether they have labels or not. Raises UserError as :func:`parquet_listing`."""
    return pictures([_read_part(path, TRAIN, DataSettings()) for path in paths])


def _pictures(parts: Sequence[Part], image: str) -> EncodedPictures:
    return EncodedPictures(
        [
            Cell(part.column(image), row, part.where, part.paths, part.file)
            for part in parts
            for row in range(part.table.num_rows)
        ]
    )


def label_hint(settings: DataSettings) -> str:
    """What names the column of labels, for the error that there is no such column."""
    return " (data.label_column sets another)" if settings.label_column is None else ", which data.label_column names"


def _split_of_file(path: Path, source: Path) -> int | None:
    named = split_of(_SHARD.sub("", path.stem))
    return named if named is not None or path.parent == source else split_of(path.parent.name)


def _classes_of(schema: Any) -> dict[str, tuple[str, ...]]:
    """The class names that Hugging Face writes into a Parquet file's metadata, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and isinstance(feature.get("names"), list)
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # of another program's making
        return {}


def _image_column(part: Part) -> str:
    columns = [field.name for field in part.fields if _holds_images(field.type)]
    if IMAGE in columns or len(columns) == 1:
        return IMAGE if IMAGE in columns else columns[0]
    found = ", ".join(columns) or f"none of {', '.join(part.names)}"
    raise UserError(
        f"{part.where}: which column holds the images? Columns with bytes: {found}; allowed: one such column, or one "
        "named 'image'"
    )


def _holds_images(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _need(part: Part, column: str, hint: str) -> None:
    names = part.names
    if names.count(column) > 1:
        raise UserError(f"{part.where}: has the column {column!r} twice; allowed: once")
    if column not in names:
        raise NoSuchColumn(f"{part.where}: has no column {column!r}{hint}; columns found: {', '.join(names)}")


def _without_labels(part: Part, label: str) -> bool:
    """Whether no row has a label: none, or class number -1, as the hub's test splits have."""
    column = part.table.column(label)
    if column.null_count == len(column):
        return True
    return label in part.classes and all(value in (-1, None) for value in values(part.table, label, part.where))


def _labels(parts: Sequence[Part], label: str) -> list[str] | npt.NDArray[Any]:
    import pyarrow

    kinds = pyarrow.types
    columns = [part.table.column(label) for part in parts]
    read = [value for part in parts for value in values(part.table, label, part.where)]
    types = [column.type.value_type if kinds.is_dictionary(column.type) else column.type for column in columns]
    if all(kinds.is_integer(kind) for kind in types):
        try:
            return _masked(read, np.int64)
        except OverflowError:
            raise UserError(f"{parts[0].where}: a label exceeds 64 bits; allowed: whole numbers below 2**63") from None
    numbers, texts = (
        all(any(is_kind(kind) for is_kind in allowed) for kind in types)
        for allowed in (
            (kinds.is_integer, kinds.is_floating, kinds.is_boolean),
            (kinds.is_string, kinds.is_large_string, kinds.is_decimal),
        )
    )
    if numbers:
        return _masked(read)
    if texts:
        return ["" if value is None else str(value) for value in read]
    found = " and ".join(dict.fromkeys(str(column.type) for column in columns))
    raise UserError(
        f"{parts[0].where}: column {label!r} holds {found}; allowed: whole numbers, decimals or text, the same in all "
        "splits"
    )


def _masked(values: Sequence[Any], dtype: type | None = None) -> npt.NDArray[Any]:
    """The numbers [N]; masked where there is none, so that ``data.skip_bad`` finds these rows."""
    empty = np.asarray([value is None for value in values])
    numbers = np.asarray([0 if value is None else value for value in values], dtype=dtype)
    return np.ma.masked_array(numbers, empty) if empty.any() else numbers


def _splits(parts: Sequence[Part], splits: Ints, place: Any) -> Ints:
    """Each row's split: those of the parts, or where all are training those of a column ``split``."""
    if (splits != TRAIN).any() or any(SPLIT not in part.table.column_names for part in parts):
        return splits
    words = [str(word) for part in parts for word in values(part.table, SPLIT, part.where)]
    read = [split_of(word) for word in words]
    if None in read:
        row = read.index(None)
        raise UserError(f"{place(row)}: split {words[row]!r} is not known; allowed: {ALLOWED}")
    return np.asarray(read, dtype=np.int64)
