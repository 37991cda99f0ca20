"""Tables of images: columns file_name, label, and perhaps split and group.

A metadata.csv, .jsonl or .parquet is in the source's folder or in its sub-folders, such as train/ and test/, beside the
images that it names: the layout of Hugging Face's imagefolder. Or the source is itself a table of any name, above the
images that it names in a column of any name, perhaps without folder and suffix: the layout of many competitions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, first_of
from cgankd.core.numbers import counted
from cgankd.core.paths import TABLE_FILES, is_file
from cgankd.data.arrow_tables import GROUP_HINT, label_hint
from cgankd.data.folder_tree import TABLES, Tree, is_litter, scan
from cgankd.data.image_files import FilePictures
from cgankd.data.listing import TRAIN, Ints, Listing
from cgankd.data.split_names import ALLOWED, split_of
from cgankd.data.table import FILE, Table, read_table

NAME = "metadata.csv"
LABEL, SPLIT = "label", "split"


def is_table(path: Path) -> bool:
    """Whether a source is a table of images by its name, in place of a folder that holds one."""
    return path.suffix.lower() in TABLE_FILES and is_file(path)


def listing(source: Path, settings: DataSettings, tree: Tree | None = None) -> Listing:
    """The rows of a table, or of the tables in a folder, in order; a table in the folder itself excludes those in its
    sub-folders.

    The label column is ``data.label_column`` ("label"), the group column ``data.group_column`` (none). Splits come from
    the column ``split``, else from the names of the files' folders, else all rows are training. Raises UserError that
    names the line for anything that can't be used.
    """
    folder = source.parent if is_table(source) else source
    tree = scan(folder, strict=False) if tree is None else tree
    if folder == source:
        tables, notes = _tables(folder, tree)
    else:
        tables = [opened(source, tree)]
        notes = tables[0].notes
    label_column = settings.label_column or LABEL
    for table in tables:
        table.need(label_column, label_hint(settings))
        if settings.group_column:
            table.need(settings.group_column, GROUP_HINT)
    rows = [(table, row) for table in tables for row in range(len(table.lines))]
    paths = [path for table in tables for path in table.files(missing_too=settings.skip_bad)]
    kept = [number for number, path in enumerate(paths) if not is_litter(path.relative_to(folder))]
    if left := len(paths) - len(kept):
        notes += (f"{counted(left, 'row was', 'rows were')} left out: for system files, such as @eaDir/",)
    paths, rows = [paths[number] for number in kept], [rows[number] for number in kept]
    groups = _groups(rows, settings.group_column) if settings.group_column else None
    splits, split_notes = _splits(folder, tables, rows, paths, settings)
    return Listing(
        where=str(tables[0].path if len(tables) == 1 else folder),
        pictures=FilePictures(paths),
        labels=[table.columns[label_column][row] for table, row in rows],
        splits=np.asarray(splits, dtype=np.int64),
        place=lambda number: rows[number][0].place(rows[number][1]),
        groups=groups,
        notes=(*notes, *_unused(tables, settings), *split_notes, *_unlisted(tree, paths)),
    )


def columns(source: Path) -> list[str]:
    """The column names of a table, or of that in a folder; [] where there is no table."""
    there = is_table(source) or any(is_file(source / name) for name in TABLES)
    return list(opened(source).columns) if there else []


def opened(source: Path, tree: Tree | None = None) -> Table:
    """The table, or that in a folder, which has one; UserError where it names no files. tree: of a table's folder."""
    if is_table(source):
        top = (scan(source.parent, strict=False) if tree is None else tree).top
        images = [path.relative_to(source.parent) for path in top.all_images()]
        found = read_table(source).with_file_column().naming(images).without_repeats()
    else:
        found = read_table(next(source / name for name in TABLES if is_file(source / name))).with_file_column()
    found.need(FILE)
    return found


def _tables(folder: Path, tree: Tree) -> tuple[list[Table], tuple[str, ...]]:
    """The tables to use, and notes."""
    homes = [home for home in tree.top.every() if home.tables]
    notes: list[str] = []
    if tree.top.tables:
        if len(homes) > 1:
            others = ", ".join(str(home.path.relative_to(folder)) for home in homes[1:4])
            notes.append(f"tables in {others} were not read, because {folder} has its own")
        homes = homes[:1]
    for home in homes:
        if len(home.tables) > 1:
            names = " and ".join(path.name for path in home.tables)
            raise UserError(f"{home.path}: has {names}; allowed: only one of them")
    if len({home.tables[0].suffix for home in homes}) > 1:
        raise UserError(f"{folder}: has tables of several kinds; allowed: all of one kind")
    tables = [read_table(home.tables[0]).with_file_column().without_repeats() for home in homes]
    for table in tables:
        table.need(FILE)
        notes += table.notes
    return tables, tuple(dict.fromkeys(notes))


def _groups(rows: Sequence[tuple[Table, int]], column: str) -> Ints:
    values = [table.columns[column][row] for table, row in rows]
    if "" in values:
        table, row = rows[values.index("")]
        raise UserError(f"{table.place(row)}: {column!r} is empty; every image needs one")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _splits(
    folder: Path,
    tables: Sequence[Table],
    rows: Sequence[tuple[Table, int]],
    paths: Sequence[Path],
    settings: DataSettings,
) -> tuple[list[int], tuple[str, ...]]:
    """Each row's split, and notes."""
    if any(SPLIT in table.columns for table in tables):
        for table in tables:
            table.need(SPLIT)
        return [_split_word(table, row) for table, row in rows], ()
    by_folder = settings.split_folders
    if by_folder is False:
        return [TRAIN] * len(rows), ()
    splits = []
    for path in paths:
        parts = Path(os.path.normpath(path.relative_to(folder))).parts[:-1]
        splits.append(next((split for part in parts if (split := split_of(part)) is not None), None))
    if TRAIN in splits and None not in splits:
        return [split for split in splits if split is not None], ("splits are read from the names of the folders",)
    named = {split for split in splits if split is not None}
    if not named or (named == {TRAIN} and by_folder is None):
        _ask_about_columns(tables, settings.label_column or LABEL)
        return [TRAIN] * len(rows), ()
    odd = splits.index(None) if None in splits else 0
    table, row = rows[odd]
    raise UserError(
        f"{table.place(row)}: {table.columns[FILE][row]!r} is not in a folder for training, but other files are in "
        f"folders named like splits; allowed: a split's folder for every file, a column {SPLIT!r}, or "
        "data.split_folders=false (all rows are training)"
    )


def _ask_about_columns(tables: Sequence[Table], label_column: str) -> None:
    """UserError for a column that holds names of splits, but is not named ``split``."""
    for table in tables:
        for name, values in table.columns.items():
            found = {split_of(value) for value in set(values)} if name != label_column else set()
            if TRAIN in found and len(found) > 1 and None not in found:
                raise UserError(
                    f"{table.path}: column {name!r} holds names of splits, but they are read from a column {SPLIT!r}; "
                    f"allowed: the name {SPLIT!r}, or data.split_folders=false (all rows are training)"
                )


def _split_word(table: Table, row: int) -> int:
    word = table.columns[SPLIT][row]
    split = split_of(word)
    if split is None:
        raise UserError(f"{table.place(row)}: split {word!r} is not known; allowed: {ALLOWED}")
    return split


def _unused(tables: Sequence[Table], settings: DataSettings) -> tuple[str, ...]:
    """A note on columns that have no effect."""
    used = {FILE, SPLIT, settings.label_column or LABEL, settings.group_column}
    names = [name for name in dict.fromkeys(name for table in tables for name in table.columns) if name not in used]
    return (f"columns that were not used: {first_of(names, most=10)}",) * bool(names)


def _unlisted(tree: Tree, paths: Sequence[Path]) -> tuple[str, ...]:
    """A note on images in the folder that no row names."""
    real = os.path.realpath if tree.linked else os.path.normpath
    listed = {real(path) for path in paths}
    found = {real(path): path for path in tree.top.all_images()}
    without = sorted(path for name, path in found.items() if name not in listed)
    count = len(without)
    folders = dict.fromkeys(f"{path.parent.relative_to(tree.top.path).as_posix()}/" for path in without)
    where = f" ({first_of(list(folders), most=3)})" if set(folders) - {"./"} else ""
    left = counted(count, "image file was", "image files were")
    return (f"{left} left out: in no row of the table{where}",) * (count > 0)
