"""WebDataset shards: tar files in which files of the same name before the dot are one sample.

A sample has an image (``000007.png``), and its label in ``000007.cls`` (a class number) or among the fields of
``000007.json``. The library ``webdataset`` reads the samples; nothing in them is decoded by it, so no pickle is loaded.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, said
from cgankd.data.arrow_tables import LABEL, Part, library, listing, pictures
from cgankd.data.image_files import EncodedPictures
from cgankd.data.listing import TRAIN, Listing
from cgankd.data.split_names import split_of, splits_of_files

SUFFIX = ".tar"
IMAGES = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")
_SHARD = re.compile(r"([-_]?\d+|-of-\d+)+$")  # train-00003, train-00003-of-00012


def tar_files(folder: Path) -> list[Path]:
    """The tar files of a folder and of the folders below it, without hidden ones."""
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def tar_listing(source: Path, paths: Sequence[Path], settings: DataSettings) -> Listing:
    """The samples of tar files, in order. Splits come from the names of the files (train-00000.tar), else from those of
    their folders; where no name is a split's, all samples are training.

    Raises UserError that names the file, and the sample, for anything that can't be used.
    """
    splits = splits_of_files(paths, [_split_of(path) for path in paths])
    parts = [Part(split, _table(path), str(path), {}, file=path) for path, split in zip(paths, splits, strict=True)]
    return listing(str(source), parts, settings)


def tar_pictures(paths: Sequence[Path]) -> EncodedPictures:
    """All images of tar files, whether they have labels or not. Raises UserError as :func:`tar_listing`."""
    return pictures([Part(TRAIN, _table(path), str(path), {}, file=path) for path in paths])


def _split_of(path: Path) -> int | None:
    named = split_of(_SHARD.sub("", path.stem))
    return split_of(path.parent.name) if named is None else named


def _table(path: Path) -> Any:
    """The samples as a pyarrow table: ``image`` as {bytes, path}, then the fields of the samples."""
    pyarrow = library("pyarrow", str(path))
    rows = [_row(sample, path) for sample in _samples(path)]
    if not rows:
        raise UserError(f"{path}: holds no sample; allowed: 1 or more, such as 000000.png with 000000.json")
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pyarrow.table({name: pyarrow.array([row.get(name) for row in rows]) for name in names})
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError) as error:
        raise UserError(f"{path}: a field holds values of several kinds ({said(error)}); allowed: one kind") from None


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    webdataset = library("webdataset", str(path))
    try:
        with path.open("rb") as stream:
            files = webdataset.tariterators.tar_file_iterator(stream)
            yield from webdataset.tariterators.group_by_keys({**file, "__url__": str(path)} for file in files)
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{path}: not readable as a tar file of samples: {said(error)}") from None


def _row(sample: dict[str, Any], path: Path) -> dict[str, Any]:
    where = f"{path}, sample {sample['__key__']}"
    kind = next((kind for kind in IMAGES if kind in sample), None)
    if kind is None:
        raise UserError(f"{where}: holds no image; allowed: a file that ends in .{', .'.join(IMAGES)}")
    row: dict[str, Any] = {"image": {"bytes": sample[kind], "path": f"{sample['__key__']}.{kind}"}}
    try:
        fields = json.loads(sample.get("json", b"{}"))
        label = {LABEL: int(sample["cls"])} if "cls" in sample else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: {said(error)}; allowed: JSON in .json, and a whole number in .cls") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where}: its .json holds {type(fields).__name__}; allowed: fields by name")
    return row | label | {name: value for name, value in fields.items() if name != "image"}
