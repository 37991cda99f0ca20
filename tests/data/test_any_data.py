"""Whatever is given as a data set is read, or refused with a sentence: any bytes, texts, values and arrays.

A few examples of each kind, always the same ones. ``make fuzz`` looks for more: with FUZZ_SECONDS set, each test tries
new examples for so many seconds, and is then skipped if it has found nothing.
"""

from __future__ import annotations

import io
import json
import math
import struct
import time
from pathlib import Path
from typing import Any

import bad_arrays
import bad_images
import bad_parquet
import h5py
import numpy as np
import pytest
import torch
from bad_inputs import good_folders, good_png
from hypothesis import strategies as st
from random_inputs import LETTERS, TEXTS, VALUES, any_input, changed, read_or_refused, rewritten

from cgankd.config.settings import DataSettings
from cgankd.data import sources


def load(path: Path, **options: object) -> None:
    splits = read_or_refused(lambda: sources.load(DataSettings.model_validate({"source": str(path), **options})))
    if splits is not None:
        for part in (splits.train, splits.val, splits.test):
            assert part.images.dtype == torch.uint8
            assert len(part.images) == len(part.labels) > 0
            assert bool(part.labels.isfinite().all())


# --- tables --------------------------------------------------------------------------------------------------------

NAMES = [f"{number}.png" for number in range(20)]


def images(folder: Path) -> Path:
    if not folder.is_dir():
        for number, name in enumerate(NAMES):
            rewritten(folder / name, good_png(number))
    return folder


CELLS = st.sampled_from(
    ["file_name", "label", "split", "0.png", "1.png", "train", "test", ",", ";", "1.5", "2", '"', '""', "\t", "\n",
     "\r\n", "\ufeff", "sep=;\n", "\0"]
)  # fmt: skip


@any_input(st.lists(CELLS | LETTERS, max_size=30).map("".join).map(str.encode) | st.binary(max_size=200))
def test_any_file_as_a_table(content: bytes, folder: Path) -> None:
    load(rewritten(images(folder / "table") / "metadata.csv", content).parent)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "task": st.sampled_from(["classification", "regression"]),
        "circular": st.floats(0.001, 1e6),
        "label_range": st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
        "train_size": st.integers(2, 30),
        "group_column": st.just("label"),
        "skip_bad": st.booleans(),
    },
)


@any_input(st.tuples(st.lists(TEXTS, min_size=1, max_size=6), st.lists(TEXTS, max_size=2), OPTIONS))
def test_any_labels_and_names_in_a_table(content: Any, folder: Path) -> None:
    labels, names, options = content
    rows = [(name, labels[number % len(labels)]) for number, name in enumerate([*NAMES, *names])]
    quoted = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows)
    text = "file_name,label\n" + quoted
    path = rewritten(images(folder / "labels") / "metadata.csv", text.encode("utf-8", "surrogatepass"))
    load(path.parent, **options)


@any_input(st.tuples(st.lists(VALUES, min_size=1, max_size=6), st.lists(VALUES, max_size=2)))
def test_any_values_in_jsonl(content: Any, folder: Path) -> None:
    labels, lines = content
    rows = [{"file_name": name, "label": labels[n % len(labels)]} for n, name in enumerate(NAMES)]
    text = "\n".join(json.dumps(row) for row in [*rows, *lines])
    load(rewritten(images(folder / "jsonl") / "metadata.jsonl", text.encode()).parent)


# --- arrays --------------------------------------------------------------------------------------------------------

SHAPES = st.sampled_from(
    [
        (),
        (0,),
        (24,),
        (24, 1),
        (23,),
        (24, 16),
        (24, 16, 16),
        (24, 16, 16, 3),
        (24, 4, 16, 16),
        (24, 16, 0, 3),
        (1, 24, 16, 16, 3),
        (30, 20, 16),
    ]
)
DTYPES = st.sampled_from(
    [
        "u1",
        "u1",
        "u1",
        "<u2",
        ">u2",
        "i1",
        "<i4",
        ">i8",
        "<u8",
        "<f2",
        "<f4",
        ">f8",
        "g",
        "?",
        "<c8",
        "S1",
        "S3",
        "<U1",
        ">U2",
        "<M8[D]",
        "<m8[ns]",
        "V3",
        "u1,u1",
        "3u1",
    ]
)


def array(content: tuple[str, tuple[int, ...], bytes]) -> np.ndarray:
    """An array of these bytes, again and again: also floats that are no numbers, and text that is none."""
    kind, shape, pattern = content
    dtype = np.dtype(kind)
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer((pattern * (size // len(pattern) + 1))[:size], dtype.base).reshape((*shape, *dtype.shape))


BYTES = st.binary(min_size=1, max_size=40) | st.sampled_from([b"\0", b"\1\0\0\0\0\0\0\0", b"a\0\0\0b\0\0\0"])
ARRAYS = st.tuples(DTYPES, SHAPES, BYTES)
LABELS = st.tuples(DTYPES, st.sampled_from([(24,), (24,), (24,), (24, 1), (23,), (0,)]), BYTES)
CONTENTS = st.fixed_dictionaries(
    {
        "images": st.just(("u1", (24, 16, 16, 3), b"\0\1\2")) | ARRAYS,
        "labels": st.just(("<i4", (24,), b"\0" * 4 + b"\1\0\0\0")) | LABELS,
    },
    optional={"class_names": LABELS | ARRAYS, "images_test": ARRAYS, "labels_test": LABELS, "x_train": ARRAYS},
)


@any_input(CONTENTS)
def test_any_arrays_in_npz(arrays: dict[str, Any], folder: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, **{name: array(content) for name, content in arrays.items()})
    load(rewritten(folder / "any.npz", stream.getvalue()))


@any_input(CONTENTS)
def test_any_arrays_in_hdf5(arrays: dict[str, Any], folder: Path) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, content in arrays.items():
            try:
                file[name] = array(content)
            except TypeError:  # HDF5 has no such type
                file[name] = [1, 2]
    load_hdf5(stream.getvalue(), folder)


def load_hdf5(content: bytes, folder: Path) -> None:
    """A file of another name each time, because HDF5 keeps a file open, by its name, until nothing refers to it."""
    path = rewritten(folder / f"{time.monotonic_ns()}.h5", content)
    load(path)
    path.unlink()


def _npz(**options: Any) -> bytes:
    members = {"images.npy": bad_arrays.plain(bad_arrays.IMAGES), "labels.npy": bad_arrays.plain(bad_arrays.LABELS)}
    return bad_arrays.archive(members, **options)


@any_input(changed(_npz(), _npz(compression=8)))
def test_any_file_as_npz(content: bytes, folder: Path) -> None:
    load(rewritten(folder / "bytes.npz", content))


@any_input(st.tuples(VALUES, TEXTS, st.binary(max_size=300)))
def test_any_header_of_an_array(content: Any, folder: Path) -> None:
    value, text, rest = content
    head = (repr(value) if text else text).encode("utf-8", "surrogatepass")
    member = b"\x93NUMPY\x01\0" + struct.pack("<H", len(head) % 2**16) + head + rest
    whole = bad_arrays.archive({"images.npy": bad_arrays.plain(bad_arrays.IMAGES), "labels.npy": member})
    load(rewritten(folder / "header.npz", whole))


@any_input(changed(bad_arrays._bytes_of_good()))
def test_any_file_as_hdf5(content: bytes, folder: Path) -> None:
    load_hdf5(content, folder)


# --- images and Parquet --------------------------------------------------------------------------------------------

PICTURES = [bad_images.encoded(bad_images.COLOURS, kind) for kind in bad_images.FORMATS.values()]


@any_input(st.tuples(changed(*PICTURES), st.sampled_from([*bad_images.FORMATS])))
def test_any_file_as_an_image(content: tuple[bytes, str], folder: Path) -> None:
    home = good_folders(folder / "images")
    path = rewritten(home / "b" / f"x.{content[1]}", content[0])
    load(home, size=16)
    path.unlink()


def _parquet() -> bytes:
    stream = io.BytesIO()
    table = bad_parquet.pa.table({"image": [good_png(n) for n in range(24)], "label": [n % 2 for n in range(24)]})
    bad_parquet.pq.write_table(table, stream)
    return stream.getvalue()


@pytest.mark.skipif(bad_parquet.pa is None, reason="needs pyarrow")
@any_input(changed(*([_parquet()] if bad_parquet.pa else [b""])))
def test_any_file_as_parquet(content: bytes, folder: Path) -> None:
    load(rewritten(folder / "any.parquet", content))
