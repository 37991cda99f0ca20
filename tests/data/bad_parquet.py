"""Parquet files, alone and as a table of image files."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import Case, good_png, has, labels_are

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:  # the cases are then left out
    pa = None

COUNT = 24
TWO = ("0", "1")


def file(change: Callable[[Any], Any] = lambda table: table, **options: Any) -> Callable[[Path], Path]:
    """A file of images as {bytes, path} and of labels 0 and 1, changed."""

    def make(folder: Path) -> Path:
        images = [{"bytes": good_png(n), "path": f"{n}.png"} for n in range(COUNT)]
        table = pa.table({"image": images, "label": [n % 2 for n in range(COUNT)]})
        pq.write_table(change(table), folder / "set.parquet", **options)
        return folder / "set.parquet"

    return make


def column(name: str, values: Any, kind: Any = None) -> Callable[[Path], Path]:
    """The file with other values in one column."""

    def change(table: Any) -> Any:
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
        place = table.column_names.index(name) if name in table.column_names else None
        return table.append_column(name, array) if place is None else table.set_column(place, name, array)

    return file(change)


def spelled(features: Any, labels: Any = None) -> Callable[[Path], Path]:
    """The file with Hugging Face's metadata about its columns; bytes are taken as they are."""
    content = features if isinstance(features, bytes) else json.dumps(features).encode()

    def change(table: Any) -> Any:
        table = table if labels is None else table.set_column(1, "label", pa.array(labels))
        return table.replace_schema_metadata({b"huggingface": content})

    return file(change)


def classes(names: Any) -> dict[str, Any]:
    return {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}


def raw(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "set.parquet").write_bytes(content)
        return folder / "set.parquet"

    return make


def cut(share: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = file()(folder)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make


def spoilt(place: int) -> Callable[[Path], Path]:
    """Sixteen bytes before the end of the file, or after its beginning, replaced."""

    def make(folder: Path) -> Path:
        path = file()(folder)
        content = bytearray(path.read_bytes())
        content[place : place + 16] = b"\xff" * 16
        path.write_bytes(content)
        return path

    return make


def not_utf8() -> Any:
    """A column of text whose second value is the byte ff, which no text holds."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in range(COUNT + 1)))
    return pa.StringArray.from_buffers(COUNT, offsets, pa.py_buffer(b"a\xff" * (COUNT // 2)))


def image_files(**columns: Any) -> Callable[[Path], Path]:
    """Image files and a metadata.parquet with these columns beside file_name."""

    def make(folder: Path) -> Path:
        for number in range(COUNT):
            (folder / f"{number}.png").write_bytes(good_png(number))
        values = {"file_name": [f"{n}.png" for n in range(COUNT)], "label": [n % 2 for n in range(COUNT)], **columns}
        pq.write_table(pa.table(values), folder / "metadata.parquet")
        return folder

    return make


def labels() -> dict[str, Case]:
    day = datetime.date(2024, 1, 1)
    refused: dict[str, tuple[Any, Any, str]] = {
        "dates": ([day] * COUNT, None, "column 'label' holds date32[day]; allowed: whole numbers, decimals or text"),
        "times": ([datetime.datetime(2024, 1, 1)] * COUNT, None, "column 'label' holds timestamp[us]; allowed"),
        "lists": ([[1]] * COUNT, None, "column 'label' holds list<"),
        "structs": ([{"a": 1}] * COUNT, None, "column 'label' holds struct<"),
        "bytes": ([b"a", b"b"] * 12, None, "column 'label' holds binary; allowed: whole"),
        "nothing": ([None] * COUNT, None, "column 'label' holds no label in any row"),
        "one empty": ([0, 1] * 11 + [1, None], None, "set.parquet, row 23: the label is empty"),
        "one empty text": (["a", "b"] * 11 + ["a", " "], None, "set.parquet, row 23: the label is empty"),
        "a missing decimal": ([0.5, 1.5] * 11 + [1.0, float("nan")], None, "row 23: label nan is not finite"),
        "an endless decimal": ([0.5, 1.5] * 11 + [1.0, float("inf")], None, "row 23: label inf is not finite"),
        "beyond 64 bits": ([2**64 - 1, 0] * 12, "uint64", "a label exceeds 64 bits"),
    }
    cases = {
        f"labels of {name}": Case(lambda folder, v=values, k=kind: column("label", v, k)(folder), refused=text)
        for name, (values, kind, text) in refused.items()
    }
    return cases | {
        "labels of booleans": Case(
            lambda folder: column("label", [True, False] * 12)(folder), check=has(COUNT, classes=TWO)
        ),
        "labels of half floats": Case(
            lambda folder: column("label", [0.5, 1.5] * 12, pa.float16())(folder), check=labels_are(0.5, 1.5)
        ),
        "labels of decimals with a fixed point": Case(
            lambda folder: column("label", [decimal.Decimal("0.50"), decimal.Decimal("1.50")] * 12)(folder),
            check=labels_are(0.5, 1.5),
        ),
        "labels in a dictionary": Case(
            lambda folder: column("label", pa.array(["a", "b"] * 12).dictionary_encode())(folder),
            check=has(COUNT, classes=("a", "b")),
        ),
        "labels that are not UTF-8": Case(
            lambda folder: column("label", not_utf8())(folder), refused="column 'label' holds text that is not UTF-8"
        ),
        "groups that are not UTF-8": Case(
            lambda folder: column("who", not_utf8())(folder),
            refused="column 'who' holds text that is not UTF-8", settings={"group_column": "who"},
        ),
        "groups with an empty one": Case(
            lambda folder: column("who", ["x", None] * 12)(folder),
            refused="set.parquet, row 1: 'who' is empty; every image needs one", settings={"group_column": "who"},
        ),
        "a column of splits with an empty one": Case(
            lambda folder: column("split", ["train", None] * 12)(folder), refused="row 1: split 'None' is not known"
        ),
        "a column of splits in numbers": Case(
            lambda folder: column("split", [0, 1] * 12)(folder), refused="row 0: split '0' is not known"
        ),
    }  # fmt: skip


def names() -> dict[str, Case]:
    """The names of classes in Hugging Face's metadata."""
    plain = has(COUNT, classes=TWO)
    return {
        "class names": Case(spelled(classes(["cat", "dog"])), check=has(COUNT, classes=("cat", "dog"))),
        "metadata that is no JSON": Case(spelled(b"{"), check=plain),
        "metadata that is no text": Case(spelled(b"\xff\xfe"), check=plain),
        "metadata that is a list": Case(spelled([1]), check=plain),
        "features that are a list": Case(spelled({"info": {"features": ["label"]}}), check=plain),
        "deep metadata": Case(spelled(b"[" * 100_000), check=plain),
        "class names that are a number": Case(spelled(classes(7)), check=plain),
        "class names that are one text": Case(spelled(classes("cd")), check=plain),
        "class names that are numbers": Case(spelled(classes([7, 8])), check=has(COUNT, classes=("7", "8"))),
        "a class name twice": Case(spelled(classes(["cat", "cat"])), refused="'class_names' holds a name twice"),
        "an empty class name": Case(spelled(classes(["cat", ""])), refused="'class_names' holds an empty name"),
        "half of a pair as a class name": Case(
            spelled(classes(["cat", "\ud83d"])), refused="has a name with bytes that are not UTF-8"
        ),
        "class names and labels that are text": Case(
            spelled(classes(["cat", "dog"]), ["cat", "dog"] * 12), refused="labels are text, but class_names"
        ),
        "class names and labels that are decimals": Case(
            spelled(classes(["cat", "dog"]), [0.0, 0.5] * 12), refused="row 1: label 0.5 is not a class"
        ),
    }


def images() -> dict[str, Case]:
    good = [good_png(n) for n in range(COUNT)]
    structs = [{"bytes": content, "path": None} for content in good]
    return {
        "plain bytes": Case(
            lambda folder: column("image", good)(folder), check=has(COUNT, classes=TWO)
        ),
        "large plain bytes": Case(
            lambda folder: column("image", good, pa.large_binary())(folder), check=has(COUNT, classes=TWO)
        ),
        "text in place of bytes": Case(
            lambda folder: column("image", [{"bytes": "abc", "path": ""}] * COUNT)(folder),
            refused="24 of 24 images can't be used: ",
        ),
        "numbers in place of bytes": Case(
            lambda folder: column("image", [{"bytes": 3}] * COUNT)(folder), refused="24 of 24 images can't be used: "
        ),
        "images as text": Case(
            lambda folder: column("image", ["aGVsbG8="] * COUNT)(folder), refused="which column holds the images?"
        ),
        "images as lists of numbers": Case(
            lambda folder: column("image", [[1, 2]] * COUNT)(folder), refused="which column holds the images?"
        ),
        "one image missing": Case(
            lambda folder: column("image", [*structs[:-1], None])(folder), refused="row 23: holds no image; allowed"
        ),
        "one image empty": Case(
            lambda folder: column("image", [*structs[:-1], {"bytes": b"", "path": None}])(folder),
            refused="row 23: not readable as an image (cannot identify image file)",
        ),
        "a path in place of an image": Case(
            lambda folder: column("image", [*structs[:-1], {"bytes": None, "path": "/etc/hostname"}])(folder),
            refused="row 23: holds no image; allowed",
        ),
        "two columns of images": Case(
            lambda folder: file(
                lambda table: table.rename_columns(["left", "label"]).append_column("right", pa.array(good))
            )(folder),
            refused="which column holds the images? Columns with bytes: left, right",
        ),
        "a column twice": Case(
            lambda folder: file(lambda table: table.append_column("label", table.column("label")))(folder),
            refused="set.parquet: has the column 'label' twice",
        ),
    }  # fmt: skip


def files() -> dict[str, Case]:
    unreadable = "set.parquet: not readable as Parquet: "
    return {
        "nothing": Case(raw(b""), refused=unreadable),
        "a mark alone": Case(raw(b"PAR1PAR1"), refused=unreadable),
        "a footer that lies": Case(raw(b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"), refused=unreadable),
        "a footer of noise": Case(raw(b"PAR1" + bytes(range(64)) + b"\x40\0\0\0PAR1"), refused=unreadable),
        "an encrypted footer": Case(raw(b"PARE" + bytes(64) + b"\x40\0\0\0PARE"), refused=unreadable),
        "CSV": Case(raw(b"image,label\n1,2\n"), refused=unreadable),
        "cut": Case(cut(0.5), refused=unreadable),
        "cut by a byte": Case(cut(0.9999), refused=unreadable),
        "a spoilt footer": Case(spoilt(-60), refused="set.parquet: "),
        "a spoilt page": Case(spoilt(4), refused="set.parquet: "),
        "no rows": Case(lambda folder: file(lambda table: table[:0])(folder), refused="no label in any row"),
        "no columns": Case(
            lambda folder: file(lambda table: table.select([]))(folder), refused="which column holds the images?"
        ),
        "many row groups": Case(file(row_group_size=1), check=has(COUNT, classes=TWO)),
        "compressed": Case(file(compression="zstd"), check=has(COUNT, classes=TWO)),
        "metadata.parquet: times to the nanosecond": Case(
            lambda folder: image_files(when=pa.array([1_700_000_000_123_456_789] * COUNT, pa.timestamp("ns")))(folder),
            check=has(COUNT, classes=TWO),
        ),
        "metadata.parquet: years that no calendar has": Case(
            lambda folder: image_files(when=pa.array([2**62] * COUNT, pa.timestamp("us")))(folder),
            check=has(COUNT, classes=TWO),
        ),
        "metadata.parquet: another column that is not UTF-8": Case(
            lambda folder: image_files(note=not_utf8())(folder), check=has(COUNT, classes=TWO)
        ),
        "metadata.parquet: labels that are not UTF-8": Case(
            lambda folder: image_files(label=not_utf8())(folder),
            refused="metadata.parquet: column 'label' holds text that is not UTF-8",
        ),
        "metadata.parquet: names that are not UTF-8": Case(
            lambda folder: image_files(file_name=not_utf8())(folder),
            refused="metadata.parquet: column 'file_name' holds text that is not UTF-8",
        ),
        "metadata.parquet: names that are numbers": Case(
            lambda folder: image_files(file_name=list(range(COUNT)))(folder), refused="24 of 24 files are not in"
        ),
        "metadata.parquet: labels of bytes": Case(
            lambda folder: image_files(label=[b"a", b"b"] * 12)(folder),
            refused="column 'label' holds bytes; allowed: text and numbers",
        ),
        "metadata.parquet: a missing label": Case(
            lambda folder: image_files(label=[0, 1] * 11 + [1, None])(folder), refused="row 23: the label is empty"
        ),
        "metadata.parquet: a path out of the folder": Case(
            lambda folder: image_files(file_name=[f"{n}.png" for n in range(23)] + ["../x.png"])(folder),
            refused="row 23: '../x.png' is outside the folder",
        ),
        "metadata.parquet: a column twice": Case(_twice, refused="metadata.parquet: has the column 'label' twice"),
    }  # fmt: skip


def _twice(folder: Path) -> Path:
    image_files()(folder)
    table = pq.ParquetFile(folder / "metadata.parquet").read()
    pq.write_table(table.append_column("label", table.column("label")), folder / "metadata.parquet")
    return folder


CASES: dict[str, Case] = {} if pa is None else {**labels(), **names(), **images(), **files()}
