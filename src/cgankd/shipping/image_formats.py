"""The layouts of exported images: image files with a table, Parquet, WebDataset, HDF5. All are written in blocks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image

from cgankd.core import extras
from cgankd.core.progress import Bar
from cgankd.data.metadata_csv import NAME
from cgankd.data.table import FILE
from cgankd.shipping.image_columns import Column, LeavingImages

IN_FOLDER = 1000  # image files; hubs allow at most 10,000 in one folder
SHARD_BYTES, SHARD_IMAGES = 100e6, 10_000  # at most in one file of Parquet or WebDataset: bytes of pixels, images
TRAIN = "train"
H5_NAME = "images.h5"
Pixels = npt.NDArray[np.uint8]


def write_image_folder(leaving: LeavingImages, folder: Path, bar: Bar) -> None:
    """train/000/000000.png ..., and train/metadata.csv (file_name, label, further columns): Hugging Face's imagefolder.

    In a folder ``train``, so that pictures beside it, such as that of the data card, belong to no split.
    """
    home, task = folder / TRAIN, leaving.task
    home.mkdir()
    with (home / NAME).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        names = [title for name, column in leaving.columns.items() for title in column.header(name, task)]
        table.writerow([FILE, *names])
        for rows, block in leaving.blocks():
            texts = [column.texts(task, rows) for column in leaving.columns.values()]
            for number, (pixels, *cells) in enumerate(zip(block, *texts, strict=True), start=rows.start):
                name = f"{number // IN_FOLDER:03d}/{number:06d}.png"
                if number % IN_FOLDER == 0:
                    (home / name).parent.mkdir()
                picture(pixels).save(home / name)
                table.writerow([name, *(cell for part in cells for cell in part)])
            bar.to(rows.stop)


def write_parquet(leaving: LeavingImages, folder: Path, bar: Bar) -> None:
    """data/train-00000-of-0000N.parquet, with images as PNG bytes and Hugging Face's description of the columns."""
    pa, parquet = (extras.opened(name, "--to parquet", "hub") for name in ("pyarrow", "pyarrow.parquet"))
    schema, shards = _schema(pa, leaving), _shards(leaving)
    (folder / "data").mkdir()
    for shard, inside in enumerate(shards):
        path = folder / "data" / f"{TRAIN}-{shard:05d}-of-{len(shards):05d}.parquet"
        with parquet.ParquetWriter(path, schema) as writer:
            for rows, block in leaving.blocks(inside.start, inside.stop):
                images = [
                    {"bytes": png(pixels), "path": f"{number:06d}.png"}
                    for number, pixels in enumerate(block, start=rows.start)
                ]
                values = {"image": images} | {n: _plain(c.values[rows]) for n, c in leaving.columns.items()}
                writer.write_table(pa.table(values, schema=schema))
                bar.to(rows.stop)


def write_webdataset(leaving: LeavingImages, folder: Path, bar: Bar) -> None:
    """data/train-00000.tar ..., with samples 000000.png, 000000.json (all columns) and, for classes, 000000.cls."""
    webdataset = extras.opened("webdataset", "--to webdataset", "hub")
    (folder / "data").mkdir()
    for shard, inside in enumerate(_shards(leaving)):
        path = folder / "data" / f"{TRAIN}-{shard:05d}.tar"
        with path.open("wb") as stream, webdataset.TarWriter(stream, user="", group="", mode=0o644, mtime=0) as tar:
            for rows, block in leaving.blocks(inside.start, inside.stop):
                for place, (number, fields) in enumerate(_fields(leaving, rows)):
                    tar.write({"__key__": f"{number:06d}", "png": png(block[place]), **fields})
                tar.tarstream.members = []  # else it keeps an entry for each file
                bar.to(rows.stop)


def _shards(leaving: LeavingImages) -> list[range]:
    """The rows of each file, of at most ``SHARD_IMAGES`` images and ``SHARD_BYTES`` of pixels."""
    count, (height, width) = len(leaving), leaving.images.size
    each = max(1, min(SHARD_IMAGES, int(SHARD_BYTES / (height * width * leaving.images.channels))))
    return [range(first, min(first + each, count)) for first in range(0, count, each)]


def _fields(leaving: LeavingImages, rows: slice) -> Iterator[tuple[int, dict[str, bytes]]]:
    """The number of each image, and its files beside the image: ``json``; ``cls`` too where labels are classes."""
    classes = leaving.task.answer_names
    values = {name: column.values[rows].tolist() for name, column in leaving.columns.items()}
    for place, number in enumerate(range(rows.start, rows.stop)):
        fields = {
            name: classes[values[name][place]] if column.kind == "label" and classes else values[name][place]
            for name, column in leaving.columns.items()
        }
        files = {"json": json.dumps(fields, ensure_ascii=False).encode()}
        yield number, files | ({"cls": str(values["label"][place]).encode()} if classes else {})


def write_hdf5(leaving: LeavingImages, folder: Path, bar: Bar) -> None:
    """images.h5: images uint8 [N, H, W, C], labels [N], further columns by name, class_names; facts as attributes."""
    count, (height, width), channels = len(leaving), leaving.images.size, leaving.images.channels
    chunk = (max(1, min(64, count)), height, width, channels)
    with h5py.File(folder / H5_NAME, "w") as file:
        shape = (count, height, width, channels)
        images = file.create_dataset("images", shape, np.uint8, chunks=chunk, compression="gzip", compression_opts=4)
        for name, column in leaving.columns.items():
            stored = file.create_dataset("labels" if name == "label" else name, data=column.values)
            stored.attrs["meaning"] = column.meaning
        if leaving.task.answer_names:
            file.create_dataset("class_names", data=list(leaving.task.answer_names), dtype=h5py.string_dtype())
        file.attrs["task"] = json.dumps(leaving.task.described(), ensure_ascii=False)
        file.attrs["synthetic"] = True
        for rows, block in leaving.blocks():
            images[rows] = block
            bar.to(rows.stop)


def png(pixels: Pixels) -> bytes:
    """uint8 [H, W, C] as the bytes of a PNG file."""
    file = io.BytesIO()
    picture(pixels).save(file, format="PNG")
    return file.getvalue()


def picture(pixels: Pixels) -> Image.Image:
    """uint8 [H, W, C], C 1 or 3, as grey or RGB."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def features(leaving: LeavingImages) -> dict[str, Any]:
    """The columns as the library ``datasets`` describes them."""
    return {"image": {"_type": "Image"}} | {
        name: _feature(column, leaving.task.answer_names) for name, column in leaving.columns.items()
    }


def _feature(column: Column, classes: tuple[str, ...]) -> dict[str, Any]:
    if column.kind == "label" and classes:
        return {"names": list(classes), "_type": "ClassLabel"}
    number = {"dtype": str(column.values.dtype), "_type": "Value"}
    return {"feature": number, "_type": "List"} if column.kind == "probabilities" else number


def _schema(pa: Any, leaving: LeavingImages) -> Any:
    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    for name, column in leaving.columns.items():
        kind = pa.from_numpy_dtype(column.values.dtype)
        fields.append((name, pa.list_(kind) if column.kind == "probabilities" else kind))
    about = json.dumps({"info": {"features": features(leaving)}}, ensure_ascii=False)
    return pa.schema(fields, metadata={"huggingface": about})


def _plain(values: npt.NDArray[Any]) -> Any:
    return values if values.ndim == 1 else values.tolist()


WRITERS: Mapping[str, Callable[[LeavingImages, Path, Bar], None]] = {
    "imagefolder": write_image_folder,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "hdf5": write_hdf5,
}
