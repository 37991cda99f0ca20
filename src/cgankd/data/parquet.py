"""Parquet files with encoded images, in the layout of Hugging Face data sets: one file, or a folder of shards.

The image column is a struct with ``bytes`` (a PNG or JPEG file) or plain binary. Shards lie in the folder or in its
sub-folder ``data``; their names begin with their split: train-00000-of-00002.parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.image_files import Encoded, EncodedPictures
from cgankd.data.listing import TRAIN, Listing
from cgankd.data.split_names import split_of

SUFFIX = ".parquet"
LABEL = "label"
BLOCK = 256  # images whose files are in memory at once


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder that holds images this way, sorted; [] for any other folder."""
    for home in (folder, folder / "data"):
        paths = sorted(path for path in home.glob(f"*{SUFFIX}") if path.name != f"metadata{SUFFIX}")
        if paths:
            return paths
    return []


def listing(paths: Sequence[Path], settings: DataSettings) -> Listing:
    """The rows of the files, in order. Raises UserError for files that can't be read, and for missing columns."""
    files = [_opened(path) for path in paths]
    about = _features(files[0])
    label = settings.label_column or LABEL
    for path, file in zip(paths, files, strict=True):
        for name in [label, *([settings.group_column] if settings.group_column else [])]:
            if name not in file.schema_arrow.names:
                raise UserError(f"{path} has no column {name!r}; columns: {', '.join(file.schema_arrow.names)}")
    image, counts = _image_column(paths[0], files[0], about), [file.metadata.num_rows for file in files]
    starts = np.cumsum([0, *counts])

    def place(row: int) -> str:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{paths[number]}, row {row - starts[number]}"

    labels = np.concatenate([_values(file, label, place, start) for file, start in zip(files, starts, strict=False)])
    groups = None
    if settings.group_column:
        column = settings.group_column
        values = [_values(file, column, place, start) for file, start in zip(files, starts, strict=False)]
        groups = np.unique(np.concatenate(values), return_inverse=True)[1].astype(np.int64)
    names = about.get(label, {}).get("names")
    splits = [split_of(path.name.split("-")[0].removesuffix(SUFFIX)) for path in paths]
    return Listing(
        where=str(paths[0] if len(paths) == 1 else paths[0].parent),
        pictures=EncodedPictures(lambda: _images(paths, image), int(starts[-1])),
        labels=labels.tolist() if labels.dtype.kind == "U" else labels,
        splits=np.repeat(np.asarray([TRAIN if split is None else split for split in splits], np.int64), counts),
        place=place,
        groups=groups,
        class_names=None if names is None else tuple(map(str, names)),
    )


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow; pip install 'cgankd[hub]'") from None
    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None


def _features(file: Any) -> Mapping[str, Any]:
    """Hugging Face's description of the columns; empty where the file has none."""
    text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return features if isinstance(features, dict) else {}


def _image_column(path: Path, file: Any, about: Mapping[str, Any]) -> str:
    names = file.schema_arrow.names
    described = [name for name in names if about.get(name, {}).get("_type") == "Image"]
    usual = [name for name in ("image", "img", "picture") if name in names]
    if not described and not usual:
        raise UserError(f"{path} has no column of images; columns: {', '.join(names)}; needed: one named 'image'")
    return str((described or usual)[0])


def _values(file: Any, column: str, place: Any, start: int) -> npt.NDArray[Any]:
    """A column with one number or text for each row, [N]; UserError for an empty cell."""
    values = file.read(columns=[column]).column(column)
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise UserError(f"{place(int(start) + row)}: column {column!r} is empty; every image needs a value")
    array = np.asarray(values.to_pylist())
    if array.ndim != 1 or array.dtype.kind not in "biufU":
        raise UserError(
            f"{place(int(start))}: column {column!r} holds no numbers or text; allowed: one value per image"
        )
    return array


def _images(paths: Sequence[Path], column: str) -> Iterator[list[Encoded]]:
    """The encoded images of all files, in blocks."""
    for path in paths:
        row = 0
        for batch in _opened(path).iter_batches(BLOCK, columns=[column]):
            block = []
            for value in batch.column(0).to_pylist():
                data = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(data, bytes):
                    raise UserError(f"{path}, row {row}: column {column!r} holds no image; needed: bytes of a file")
                block.append(Encoded(data, f"{path}, row {row}"))
                row += 1
            yield block
