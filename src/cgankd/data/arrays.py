"""Arrays in one .npz or HDF5 file: x_train, y_train, x_test, y_test, or images_..., labels_..., or images, labels.

x_val and y_val, class_names and a group array are also read. Pickled objects are never loaded.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, said
from cgankd.data.importing import ArrayPictures
from cgankd.data.listing import TEST, TRAIN, VAL, Listing, NoSuchColumn

PAIRS = (("x", "y"), ("images", "labels"))
PARTS = ((TRAIN, "_train"), (VAL, "_val"), (VAL, "_valid"), (TEST, "_test"))
LAYOUTS = "x_train and y_train (x_test, y_test), images_train and labels_train (...), or images and labels"
Read = Callable[[str], npt.NDArray[Any]]


def npz_listing(path: Path, settings: DataSettings) -> Listing:
    """The arrays of a NumPy .npz file. Raises UserError for one that is broken or holds other arrays."""
    with _npz(path) as (names, read):
        return _listing(path, names, read, read, settings)


def h5_listing(path: Path, settings: DataSettings) -> Listing:
    """The arrays of an HDF5 file; images stay in the file until they are needed."""
    return _listing(path, *_h5(path), settings)


def pictures(path: Path) -> ArrayPictures:
    """All images of an .npz or HDF5 file, from all its splits, whether they have labels or not; errors as above."""
    if path.suffix.lower() != ".npz":
        names, lazily, _ = _h5(path)
        return _unlabelled(path, names, lazily)
    with _npz(path) as (names, read):
        return _unlabelled(path, names, read)


def _unlabelled(path: Path, names: Sequence[str], images_of: Callable[[str], Any]) -> ArrayPictures:
    for x, _ in PAIRS:
        if found := [x] if x in names else [x + end for _, end in PARTS if x + end in names]:
            return ArrayPictures([images_of(x) for x in found], [f"{path}: array {x!r}" for x in found], path)
    raise UserError(f"{path}: found arrays {', '.join(names) or '(none)'}; needed: images, or x")


@contextmanager
def _npz(path: Path) -> Iterator[tuple[Sequence[str], Read]]:
    """The names of the arrays, and what reads one."""
    try:
        archive = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from None
    except Exception:  # zipfile raises errors of many kinds for damaged files
        archive = None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"{path}: not readable as .npz; allowed: what numpy.savez writes, without pickled objects")

    def read(name: str) -> npt.NDArray[Any]:
        try:
            return np.asarray(archive[name])
        except MemoryError:
            raise UserError(f"{path}: array {name!r} doesn't fit into memory; an .h5 file is read in parts") from None
        except Exception as error:  # headers that lie and archives with a password raise errors of many kinds
            if "allow_pickle" in str(error):
                raise UserError(f"{path}: array {name!r} holds Python objects; allowed: numbers or text") from None
            raise UserError(f"{path}: array {name!r} is broken ({said(error)})") from None

    with archive:
        for name in archive.files:
            if archive.files.count(name) > 1:
                raise UserError(f"{path}: holds the array {name!r} twice; allowed: once")
        yield archive.files, read


def _h5(path: Path) -> tuple[Sequence[str], Callable[[str], Any], Read]:
    """The names of the arrays, what opens one, and what reads one."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: not readable as HDF5: {_reason(error)}") from None

    def lazily(name: str) -> Any:
        return _inside(path, file, name)

    def read(name: str) -> npt.NDArray[Any]:
        data = _inside(path, file, name)
        text = h5py.check_string_dtype(data.dtype) is not None
        if data.dtype.kind == "O" and not text:
            raise UserError(
                f"{path}: array {name!r} holds lists or references; allowed: whole numbers, decimals or text"
            )
        try:
            return np.asarray(data.asstr("utf-8")[()] if text else data[()])
        except UnicodeDecodeError:
            raise UserError(f"{path}: array {name!r} holds text that is not UTF-8") from None
        except MemoryError:
            raise UserError(f"{path}: array {name!r} doesn't fit into memory") from None
        except Exception as error:  # the library raises errors of many kinds for broken files
            raise UserError(f"{path}: array {name!r} is broken ({said(error)})") from None

    try:
        names = [name for name in file if _is_array(file, name)]
    except Exception as error:  # a damaged directory
        raise UserError(f"{path}: not readable as HDF5: {said(error)}") from None
    return names, lazily, read


def _is_array(file: h5py.File, name: str) -> bool:
    try:
        return isinstance(file.get(name), h5py.Dataset)
    except Exception:  # a link in a circle, or a damaged header
        return False


def _inside(path: Path, file: h5py.File, name: str) -> Any:
    """The array, which is whole and in this file alone; UserError for any other.

    HDF5 reads zeros where nothing was written or another file is missing, and a file from elsewhere must not choose
    files of this machine.
    """
    data = file[name]
    others = [data.file.filename] if data.file.filename != file.filename else []
    others += [entry[0] for entry in data.external or []]
    others += (
        [source.file_name for source in data.virtual_sources() if source.file_name != "."] if data.is_virtual else []
    )
    if others:
        raise UserError(f"{path}: array {name!r} is in another file ({others[0]}); allowed: arrays inside the file")
    if data.shape is None:
        raise UserError(f"{path}: array {name!r} holds no values; allowed: [N] or more dimensions")
    if not data.size or data.is_virtual:
        return data
    if not data.id.get_storage_size():
        raise UserError(f"{path}: array {name!r} was never written, so it has no values; allowed: arrays with values")
    if data.chunks:
        needed = math.prod(-(-side // part) for side, part in zip(data.shape, data.chunks, strict=True))
        if (written := data.id.get_num_chunks()) < needed:
            raise UserError(
                f"{path}: array {name!r} was only written in part ({written:,} of {needed:,} chunks); allowed: arrays "
                "that were written to their end"
            )
    return data


def names(path: Path) -> list[str]:
    """The names of arrays with a value for each image, such as groups, without the ending of their split."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                every = list(archive.files)
        else:
            with h5py.File(path, "r") as file:
                every = list(file)
    except Exception:  # reading the images says why
        return []
    endings = tuple(ending for _, ending in PARTS)
    bare = [next((name[: -len(end)] for end in endings if name.endswith(end)), name) for name in every]
    return list(dict.fromkeys(bare))


def _reason(error: OSError) -> str:
    """Why HDF5 can't open a file: the system's reason where there is one, else HDF5's own, in brackets."""
    message = " ".join(str(error).split())
    if error.errno is None:
        return message.partition("(")[2].rstrip(")") or message
    reason = os.strerror(error.errno)
    if "unable to lock" not in message:
        return reason
    if error.errno in (errno.EAGAIN, errno.EACCES):
        return f"{reason}, because another program has the file open; close it there, or give a copy"
    return f"{reason}, because the disk can't lock files; set the environment variable HDF5_USE_FILE_LOCKING=FALSE"


def _listing(
    path: Path,
    names: Sequence[str],
    images_of: Callable[[str], Any],
    read: Read,
    settings: DataSettings,
) -> Listing:
    if settings.label_column is not None:
        raise NoSuchColumn(f"data.label_column={settings.label_column!r} is for metadata.csv, not for {path}")
    parts = _find(path, names)
    images = [images_of(x) for _, x, _, _ in parts]
    pictures = ArrayPictures(images, [f"{path}: array {x!r}" for _, x, _, _ in parts], path)
    used = {"class_names"}
    labels = []
    for (_, x, y, _), array in zip(parts, images, strict=True):
        labels.append(_column(path, y, read(y), len(array)))
        used |= {x, y}
    lengths = [len(column) for column in labels]
    starts = np.cumsum([0, *lengths])

    def place(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{path}: array {parts[part][2]!r}, row {row - starts[part]}"

    groups = None
    if settings.group_column is not None:
        group_names = [settings.group_column + suffix for _, _, _, suffix in parts]
        for name in group_names:
            if name not in names:
                raise UserError(
                    f"{path}: data.group_column={settings.group_column!r} needs an array {name!r}; "
                    f"found: {', '.join(names)}"
                )
        used |= set(group_names)
        columns = [_column(path, name, read(name), size) for name, size in zip(group_names, lengths, strict=True)]
        groups = np.unique(_joined(path, columns), return_inverse=True)[1].astype(np.int64)
    joined = _joined(path, labels)
    unused = [name for name in names if name not in used]
    return Listing(
        where=str(path),
        pictures=pictures,
        labels=joined.tolist() if joined.dtype.kind == "U" else joined,
        splits=np.repeat(np.asarray([split for split, *_ in parts], dtype=np.int64), lengths),
        place=place,
        groups=groups,
        class_names=_class_names(path, read("class_names")) if "class_names" in names else None,
        notes=(f"arrays that were not used: {', '.join(unused)}",) * bool(unused),
    )


def _find(path: Path, names: Sequence[str]) -> list[tuple[int, str, str, str]]:
    """(split, image array, label array, suffix) of each split in the file."""
    for x, y in PAIRS:
        parts = [(split, x + end, y + end, end) for split, end in PARTS if x + end in names]
        if x in names:
            parts = [(TRAIN, x, y, "")]
        if not parts:
            continue
        if parts[0][0] != TRAIN:
            raise UserError(f"{path}: has {parts[0][1]!r} but no {x + '_train'!r}; needed: {LAYOUTS}")
        for _, images, labels, _ in parts:
            if labels not in names:
                raise UserError(f"{path}: has {images!r} but no {labels!r}; found: {', '.join(names)}")
        return parts
    raise UserError(f"{path}: found arrays {', '.join(names) or '(none)'}; needed: {LAYOUTS}")


def _column(path: Path, name: str, values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """One value per image, [N]: text, whole numbers or floats; UserError for anything else."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UserError(f"{path}: array {name!r} has shape {list(values.shape)}; allowed: [N], one value per image")
    if len(values) != length:
        raise UserError(f"{path}: array {name!r} has {len(values):,} rows, but there are {length:,} images")
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path}: array {name!r} holds text that is not UTF-8") from None
    if values.dtype.kind == "U" and values.nbytes:
        codes = np.frombuffer(values.astype(values.dtype.newbyteorder("<")).tobytes(), "<u4")
        if codes.max() > sys.maxunicode:  # Python ends in an error where it touches such text
            raise UserError(f"{path}: array {name!r} holds text with letters that do not exist; allowed: Unicode")
    if values.dtype.kind == "O":
        values = values.astype(str)  # HDF5 strings of varying length; objects in .npz were refused before
    if values.dtype.kind not in "biufU":
        raise UserError(f"{path}: array {name!r} holds {values.dtype}; allowed: whole numbers, decimals or text")
    return values


def _joined(path: Path, columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({column.dtype.kind == "U" for column in columns}) > 1:
        raise UserError(
            f"{path}: labels or groups are text in one split and numbers in another; allowed: the same in all"
        )
    whole = all(column.dtype.kind in "iu" and column.max(initial=0) < 2**63 for column in columns)
    return np.concatenate([column.astype(np.int64) for column in columns] if whole else columns)


def _class_names(path: Path, values: npt.NDArray[Any]) -> tuple[str, ...]:
    values = _column(path, "class_names", values, len(values) if values.ndim else 0)
    return tuple(str(value) for value in values)
