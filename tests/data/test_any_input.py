"""Whatever a reader is given, it reads it or raises UserError with one sentence: any bytes, texts, trees and arrays.

A few examples of each kind, always the same ones. ``make fuzz`` looks for more: with FUZZ_SECONDS set, each test tries
new examples for so many seconds, and is then skipped if it has found nothing.
"""

from __future__ import annotations

import math
import io
import json
import os
import struct
import time
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_arrays
import bad_checkpoints
import bad_images
import bad_parquet
import h5py
import numpy as np
import pytest
import torch
from bad_inputs import good_folders, good_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cgankd.config import recipe, yaml_values
from cgankd.config.settings import DataSettings
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import UserError
from cgankd.core.store import open_artifact
from cgankd.data import sources
from cgankd.nets.conversion import convert_pth
from cgankd.nets.weights import load_weights

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
FEW = settings(
    max_examples=10**9 if SECONDS else 30,
    derandomize=not SECONDS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def any_input(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of (one input, an empty or shared folder); while fuzzing, it is skipped when its time is over."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        begun: list[float] = []

        @FEW
        @given(content=strategy)
        def run(content: Any, folder: Path) -> None:
            begun.append(time.monotonic()) if not begun else None
            if SECONDS and time.monotonic() - begun[0] > SECONDS:
                pytest.skip(f"nothing was found in {SECONDS:g} s")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                test(content, folder)

        run.__name__ = run.__qualname__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


def read_or_refused(reader: Callable[[], Any]) -> Any:
    """What the reader returns; None where it refuses with a sentence."""
    try:
        return reader()
    except UserError as error:
        assert len(str(error)) > 20
        return None


def load(path: Path, **options: object) -> None:
    splits = read_or_refused(lambda: sources.load(DataSettings.model_validate({"source": str(path), **options})))
    if splits is not None:
        for part in (splits.train, splits.val, splits.test):
            assert part.images.dtype == torch.uint8
            assert len(part.images) == len(part.labels) > 0
            assert bool(part.labels.isfinite().all())


# --- strategies ----------------------------------------------------------------------------------------------------

LETTERS = st.text(st.characters(codec="utf-8"), max_size=12)
ODD = st.sampled_from(
    ["", " ", "0", "1", "-1", "007", "1.5", "1,5", "nan", "inf", "1e999", "9" * 5000, "none", "true", "~", "a/b", "..",
     "/etc/passwd", "\x00", "\ud83d", "\udcff", "é", "e\u0301", "0x_", "2024-02-31", "1:30", "=1+1", "%s", "{x}"]
)  # fmt: skip
TEXTS = LETTERS | ODD
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def changed(*contents: bytes) -> st.SearchStrategy[bytes]:
    """One of the contents with a few bytes replaced, removed or added, or cut; or any bytes."""
    places = st.floats(0, 1)
    pieces = st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    edits = st.lists(st.tuples(places, st.integers(0, 8), pieces), min_size=1, max_size=5)

    def apply(content: bytes, edits: list[tuple[float, int, bytes]], cut: float) -> bytes:
        for place, length, piece in edits:
            at = int(place * len(content))
            content = content[:at] + piece + content[at + length :]
        return content[: int(cut * len(content))] if cut < 0.2 else content

    return st.builds(apply, st.sampled_from(contents), edits, places) | st.binary(max_size=200)


def rewritten(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- recipes -------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["data", "seeds", "size", "source", "digits", "search", "extends", "name", "kind", ": ", ":\n  ", "- ", "\n", "\n  ",
     "[", "]", "{", "}", ", ", "&a ", "*a", "<<: ", "!!int ", "!!float ", "!!timestamp ", "!!set ", "!x ", "? ", "| ", ">",
     "'", '"', "#", "---", "...", "%YAML 1.1", "~", "0x_", "0b_", "1:30", ".inf", "1e3", "2024-13-45", "null", "\t", "@",
     "`", "\\"]
)  # fmt: skip
YAML = st.lists(WORDS | LETTERS, max_size=25).map("".join)


@any_input(YAML.map(str.encode) | st.binary(max_size=100))
def test_any_file_as_a_recipe(content: bytes, folder: Path) -> None:
    found = read_or_refused(lambda: recipe.load(str(rewritten(folder / "any.yaml", content))))
    if found is not None:
        again = rewritten(folder / "again.yaml", found.to_yaml().encode())
        assert recipe.load(str(again)) == found


def settings_tree(model: type[BaseModel], depth: int = 0) -> st.SearchStrategy[Any]:
    """Mappings with keys of the model, and now and then others; values of any kind."""
    fields = {}
    for name, field in model.model_fields.items():
        inner = [kind for kind in yaml_values.alternatives(field.annotation) if yaml_values.is_model(kind)]
        below = [settings_tree(kind, depth + 1) for kind in inner] if depth < 3 else []
        literals = [item for kind in yaml_values.alternatives(field.annotation) for item in typing.get_args(kind)]
        fields[name] = st.one_of(VALUES, *below, *([st.sampled_from(literals)] if literals else []))
    known = st.fixed_dictionaries({}, optional=fields)
    few = known.map(lambda tree: dict(list(tree.items())[:3]))
    return few | few.flatmap(lambda tree: st.dictionaries(TEXTS, VALUES, max_size=1).map(lambda more: {**tree, **more}))


@any_input(settings_tree(recipe.Recipe))
def test_any_tree_as_a_recipe(tree: Any, folder: Path) -> None:
    read_or_refused(lambda: recipe.from_tree(tree))


KEYS = st.sampled_from(["data", "size", "seeds", "label_range", "teacher", "student", "fit", "steps", "kind", "synthesis",
                        "subsampling", "q", "search", "jury", "0", "1", "compare", "methods", ""])  # fmt: skip


@any_input(st.lists(st.builds(lambda keys, sign, text: ".".join(keys) + sign + text,
                              st.lists(KEYS | TEXTS, min_size=1, max_size=4), st.sampled_from(["=", "=", "=", ""]),
                              YAML | TEXTS), max_size=3))  # fmt: skip
def test_any_overrides(overrides: list[str], folder: Path) -> None:
    read_or_refused(lambda: recipe.from_tree({}, overrides))


# --- tables --------------------------------------------------------------------------------------------------------

NAMES = [f"{number}.png" for number in range(20)]


def images(folder: Path) -> Path:
    if not folder.is_dir():
        for number, name in enumerate(NAMES):
            rewritten(folder / name, good_png(number))
    return folder


CELLS = st.sampled_from(["file_name", "label", "split", "0.png", "1.png", "train", "test", ",", ";", "\t", "\n", "\r\n",
                         '"', '""', "1.5", "2", "\ufeff", "sep=;\n", "\0"])  # fmt: skip


@any_input(st.lists(CELLS | LETTERS, max_size=30).map("".join).map(str.encode) | st.binary(max_size=200))
def test_any_file_as_a_table(content: bytes, folder: Path) -> None:
    load(rewritten(images(folder / "table") / "metadata.csv", content).parent)


OPTIONS = st.fixed_dictionaries(
    {}, optional={
        "task": st.sampled_from(["classification", "regression"]),
        "circular": st.floats(0.001, 1e6),
        "label_range": st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
        "train_size": st.integers(2, 30),
        "group_column": st.just("label"),
        "skip_bad": st.booleans(),
    }
)  # fmt: skip


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
    [(), (0,), (24,), (24, 1), (23,), (24, 16), (24, 16, 16), (24, 16, 16, 3), (24, 4, 16, 16), (24, 16, 0, 3),
     (1, 24, 16, 16, 3), (30, 20, 16)]
)  # fmt: skip
DTYPES = st.sampled_from(
    ["u1", "u1", "u1", "<u2", ">u2", "i1", "<i4", ">i8", "<u8", "<f2", "<f4", ">f8", "g", "?", "<c8", "S1", "S3", "<U1",
     ">U2", "<M8[D]", "<m8[ns]", "V3", "u1,u1", "3u1"]
)  # fmt: skip


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


# --- weights and checkpoints ---------------------------------------------------------------------------------------


def _safetensors(header: Any, content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


HEADERS = st.dictionaries(
    TEXTS.filter(str.isprintable) | st.just("__metadata__"),
    VALUES | st.fixed_dictionaries({
        "dtype": st.sampled_from(["F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F77"]),
        "shape": st.lists(st.integers(-1, 2**40), max_size=3),
        "data_offsets": st.lists(st.integers(0, 2**63), min_size=2, max_size=2),
    }),
    max_size=3,
)  # fmt: skip
GOOD = _safetensors(bad_checkpoints.tensor(), bytes(16))


@any_input(changed(GOOD) | st.builds(_safetensors, HEADERS, st.binary(max_size=64)))
def test_any_file_as_safetensors(content: bytes, folder: Path) -> None:
    path = rewritten(folder / "any.safetensors", content)
    read_or_refused(lambda: convert_pth(path, folder / "own.safetensors"))
    network = torch.nn.Linear(2, 2)
    read_or_refused(lambda: load_weights(network, path))


OLD = bad_checkpoints._bytes_of(bad_checkpoints.STATE, _use_new_zipfile_serialization=False)


@any_input(changed(bad_checkpoints.WHOLE, OLD))
def test_any_file_as_a_checkpoint_of_torch(content: bytes, folder: Path) -> None:
    path = rewritten(folder / "any.pth", content)
    read_or_refused(lambda: convert_pth(path, folder / "own.safetensors"))


@any_input(st.tuples(HEADERS, st.dictionaries(TEXTS, TEXTS, max_size=2), st.binary(max_size=64)))
def test_any_file_as_the_state_of_a_loop(content: Any, folder: Path) -> None:
    header, metadata, rest = content
    names = {f"module/net/{name}": value for name, value in header.items()}
    path = rewritten(folder / "checkpoint.safetensors", _safetensors({**names, "__metadata__": metadata}, rest))
    network = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(network.parameters())
    read_or_refused(lambda: Checkpoint(path).load({"net": network}, {"adam": optimiser}))


@any_input(VALUES | st.fixed_dictionaries(
    {}, optional={"key": TEXTS, "files": st.dictionaries(TEXTS, VALUES, max_size=2) | VALUES, "seconds": VALUES,
                  "summary": VALUES}))  # fmt: skip
def test_any_description_of_an_artifact(content: Any, folder: Path) -> None:
    rewritten(folder / "artifact" / "artifact.json", json.dumps(content).encode())
    read_or_refused(lambda: open_artifact(folder / "artifact"))
