"""Arrays in .npz and HDF5 files: types, shapes, headers that lie, and archives that are no plain ones."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bad_inputs import Case, has, labels_are

COUNT = 24
IMAGES = np.random.default_rng(5).integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(COUNT) % 2
GOOD: dict[str, Any] = {"images": IMAGES, "labels": LABELS}
TWO = ("0", "1")


def npz(**changes: Any) -> Callable[[Path], Path]:
    """A file of the good arrays with changes; None leaves an array out."""
    arrays = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}

    def make(folder: Path) -> Path:
        np.savez(folder / "set.npz", **arrays)
        return folder / "set.npz"

    return make


def h5(change: Callable[[h5py.File], object] = lambda file: None, **changes: Any) -> Callable[[Path], Path]:
    """The same as HDF5; ``change`` may do more to the file."""

    def make(folder: Path) -> Path:
        with h5py.File(folder / "set.h5", "w") as file:
            for name, value in {**GOOD, **changes}.items():
                if value is not None:
                    file[name] = value
            change(file)
        return folder / "set.h5"

    return make


def both(name: str, case: Callable[[Callable[..., Any]], Case]) -> dict[str, Case]:
    return {f"npz: {name}": case(npz), f"h5: {name}": case(h5)}


def types() -> dict[str, Case]:
    """What images and labels may be made of, in either kind of file."""
    images = {
        "images of decimals": (IMAGES / 255, "'images' holds float64; allowed: images as uint8 or uint16; scale"),
        "images of half floats": (IMAGES.astype(np.float16), "'images' holds float16; allowed: images as uint8"),
        "images of signed bytes": ((IMAGES // 2).astype(np.int8), "'images' holds int8; allowed: images as uint8"),
        "images of 64 bits": (IMAGES.astype(np.int64), "'images' holds int64; allowed: images as uint8 or uint16"),
        "images of 32 bits": (IMAGES.astype(np.uint32), "'images' holds uint32; allowed: images as uint8"),
        "images of booleans": (IMAGES > 127, "'images' holds bool; allowed: images as uint8 or uint16"),
        "images of complex numbers": (IMAGES * 1j, "'images' holds complex128; allowed: images as uint8"),
        "images with named fields": (np.zeros(COUNT, [("r", "u1"), ("g", "u1")]), "'images' holds [('r'"),
        "images of two channels": (IMAGES[..., :2], "'images' has shape [24, 16, 16, 2]; allowed: [N, C, H, W]"),
        "images in a line": (IMAGES.reshape(COUNT, -1), "'images' has shape [24, 768]; allowed: [N, C, H, W]"),
        "images of five dimensions": (IMAGES[None], "'images' has shape [1, 24, 16, 16, 3]; allowed: [N, C, H, W]"),
        "one number for all images": (np.uint8(7), "'images' has shape []; allowed: [N, C, H, W]"),
        "images of no height": (
            IMAGES[:, :0],
            "'images' has shape [24, 0, 16, 3]; allowed: 1 or more pixels on each side",
        ),
        "images that are too small": (IMAGES[:, :9, :9], "images are 9x9 pixels; allowed: 16 or more on each side"),
        "too few images": (IMAGES[:23], "'labels' has 24 rows, but there are 23 images"),
    }
    labels: dict[str, tuple[Any, str]] = {
        "a missing label": (np.where(LABELS, np.nan, 1.5), "'labels', row 1: label nan is not finite in float32"),
        "an endless label": (np.where(LABELS, np.inf, 1.5), "'labels', row 1: label inf is not finite in float32"),
        "a label beyond float32": (np.where(LABELS, 1e300, 1.5), "row 1: label 1e+300 is not finite in float32"),
        "complex labels": (LABELS * 1j, "'labels' holds complex128; allowed: whole numbers, decimals or text"),
        "labels with named fields": (np.zeros(COUNT, [("a", "i4")]), "'labels' holds [('a', '<i4')]; allowed: whole"),
        "labels of two columns": (np.stack([LABELS] * 2, 1), "'labels' has shape [24, 2]; allowed: [N], one value per"),
        "one label for all": (np.int64(3), "'labels' has shape []; allowed: [N], one value per image"),
        "labels that are all equal": (LABELS * 0, "1 distinct training label; at least two are needed"),
        "an empty label": (np.array([b"a", b""] * 12), "'labels', rows 1, 3, 5, 7, 9 and 7 more: the label"),
        "text that is not UTF-8": (np.array([b"a", b"\xff"] * 12), "'labels' holds text that is not UTF-8"),
        "a label beyond 64 bits": (LABELS.astype(np.uint64) * (2**64 - 1), "a label exceeds 64 bits; allowed: whole"),
    }
    cases: dict[str, Case] = {}
    for name, (value, text) in images.items():
        cases |= both(name, lambda make, value=value, text=text: Case(make(images=value), refused=text))
    for name, (value, text) in labels.items():
        cases |= both(name, lambda make, value=value, text=text: Case(make(labels=value), refused=text))
    cases |= both("no images", lambda make: Case(make(images=IMAGES[:0], labels=LABELS[:0]), refused="holds no images"))
    cases |= both(
        "no images, and decimals as labels",
        lambda make: Case(make(images=IMAGES[:0], labels=LABELS[:0] / 2), refused="holds no images"),
    )
    cases |= both(
        "images of no height, and a size",
        lambda make: Case(
            make(images=IMAGES[:, :0]), refused="allowed: 1 or more pixels on each side", settings={"size": 16}
        ),
    )
    cases |= both("labels of booleans", lambda make: Case(make(labels=LABELS > 0), check=has(COUNT, classes=TWO)))
    cases |= both(
        "labels of half floats",
        lambda make: Case(make(labels=(LABELS + 0.5).astype(np.float16)), check=labels_are(0.5, 1.5)),
    )
    cases |= both(
        "labels with the high byte first",
        lambda make: Case(make(labels=(LABELS + 0.5).astype(">f8")), check=labels_are(0.5, 1.5)),
    )
    cases |= both(
        "labels of long doubles",
        lambda make: Case(make(labels=(LABELS + 0.5).astype(np.longdouble)), check=labels_are(0.5, 1.5)),
    )
    return cases


def names() -> dict[str, Case]:
    """class_names."""
    texts = np.array([b"cat", b"dog"])

    values: dict[str, tuple[Any, dict[str, Any], str]] = {
        "one name": (np.array([b"cat"]), {}, "label 1 is outside class_names; allowed: 0 to 0"),
        "a name twice": (np.array([b"cat", b"cat"]), {}, "'class_names' holds a name twice"),
        "names in a table": (np.array([[b"cat", b"dog"]]), {}, "'class_names' has shape [1, 2]; allowed"),
        "a single name": (np.bytes_(b"cat"), {}, "'class_names' has shape []; allowed"),
        "no names": (texts[:0], {}, "label 0 is outside class_names"),
        "an empty name": (np.array([b"cat", b""]), {}, "'class_names' holds an empty name"),
        "labels that are text": (
            texts,
            {"labels": np.array([b"cat", b"dog"] * 12)},
            "labels are text, but class_names",
        ),
        "labels that are decimals": (texts, {"labels": LABELS / 2}, "label 0.5 is not a class; allowed: whole"),
        "labels below zero": (texts, {"labels": LABELS - 1}, "row 0: label -1 is outside class_names"),
    }
    cases: dict[str, Case] = {}
    for name, (value, changes, text) in values.items():
        changes = {**changes, "class_names": value}
        cases |= both(f"class_names: {name}", lambda make, c=changes, text=text: Case(make(**c), refused=text))
    cases |= both(
        "class_names: numbers",
        lambda make: Case(make(class_names=np.array([7, 8])), check=has(COUNT, classes=("7", "8"))),
    )
    return cases


# --- archives -----------------------------------------------------------------------------------------------------


def npy(descr: str, shape: str, content: bytes = b"", order: str = "False") -> bytes:
    """One array as numpy writes it, with a header that may lie."""
    head = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + content


def plain(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(members: dict[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def zipped(labels: bytes, images: bytes | None = None) -> Callable[[Path], Path]:
    members = {"images.npy": plain(IMAGES) if images is None else images, "labels.npy": labels}
    return written(archive(members))


def written(content: bytes, name: str = "set.npz") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def archives() -> dict[str, Case]:
    broken = "array 'labels' is broken ("
    good = plain(LABELS)
    whole = archive({"images.npy": plain(IMAGES), "labels.npy": good})
    packed = archive({"images.npy": plain(IMAGES), "labels.npy": good}, compression=zipfile.ZIP_DEFLATED)
    headers = {
        "promises more rows": npy("'<i8'", "(25,)", LABELS.tobytes()),
        "promises more than any machine has": npy("'<i8'", "(10000000000000000000000,)", LABELS.tobytes()),
        "has a negative shape": npy("'<i8'", "(-24,)", LABELS.tobytes()),
        "has a shape of decimals": npy("'<i8'", "(24.0,)", LABELS.tobytes()),
        "has no shape": b"\x93NUMPY\x01\0\x10\0{'descr': '<i8'}",
        "is no mapping": b"\x93NUMPY\x01\0\x04\0[1]\n",
        "is a call": b"\x93NUMPY\x01\0\x20\0__import__('os').system('true')\n",
        "is very deep": b"\x93NUMPY\x01\0\xff\x1f" + b"(" * 8191,
        "has an unknown type": npy("'<q77'", "(24,)", LABELS.tobytes()),
        "has a type of 4 GB": npy("'<U1000000000'", "(24,)", LABELS.tobytes()),
        "is cut": good[:60],
        "is of a version that does not exist": b"\x93NUMPY\x09\0" + good[8:],
    }
    cases = {f"npz: a header that {name}": Case(zipped(content), refused=broken) for name, content in headers.items()}
    large = npy("'<i8'", "(1000000000000,)", LABELS.tobytes())
    cases["npz: a header that promises 8 TB"] = Case(zipped(large), refused="array 'labels' doesn't fit into memory")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}] * COUNT, dtype=object), allow_pickle=True)
    encrypted = bytearray(whole)
    for start in (whole.index(b"PK\x03\x04") + 6, whole.index(b"PK\x01\x02") + 8):
        encrypted[start] |= 1
    method = bytearray(whole)
    for start in (whole.index(b"PK\x03\x04") + 8, whole.index(b"PK\x01\x02") + 10):
        method[start] = 99
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as file:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, array in (("images", IMAGES), ("labels", LABELS), ("labels", 1 - LABELS)):
                file.writestr(f"{name}.npy", plain(array))
    return cases | {
        "npz: pickled labels": Case(zipped(pickled.getvalue()), refused="array 'labels' holds Python objects"),
        "npz: pickled images": Case(zipped(good, pickled.getvalue()), refused="array 'images' holds Python objects"),
        "npz: a pickle in place of an array": Case(zipped(b"\x80\x04K\x01."), refused="array 'labels' "),
        "npz: a text in place of an array": Case(zipped(b"0,1,0,1"), refused="array 'labels' has shape []"),
        "npz: an archive with a password": Case(written(bytes(encrypted)), refused="array 'images' is broken ("),
        "npz: an unknown compression": Case(written(bytes(method)), refused="array 'images' is broken ("),
        "npz: an array twice": Case(written(twice.getvalue()), refused="holds the array 'labels' twice"),
        "npz: cut": Case(written(whole[:-300]), refused="not readable as .npz"),
        "npz: cut and compressed": Case(written(packed[: len(packed) // 2]), refused="not readable as .npz"),
        "npz: a spoilt compressed array": Case(
            written(packed[:400] + b"\xff\0\xff\0" + packed[404:]), refused="array 'images' is broken ("
        ),
        "npz: an empty archive": Case(written(archive({})), refused="found arrays (none); needed: x_train"),
        "npz: arrays in folders": Case(
            written(archive({"../images.npy": plain(IMAGES), "/labels.npy": good})),
            refused="found arrays ../images, /labels; needed: x_train",
        ),
        "npz: an image": Case(written(b"\x89PNG\r\n\x1a\n" + bytes(100)), refused="not readable as .npz"),
        "npz: a tar": Case(written(bytes(257) + b"ustar" + bytes(300)), refused="not readable as .npz"),
        "npz: columns first": Case(
            npz(images=np.asfortranarray(IMAGES), labels=np.asfortranarray(LABELS)), check=has(COUNT, classes=TWO)
        ),
        "npz: compressed": Case(written(packed), check=has(COUNT, classes=TWO)),
        "npz: letters that do not exist": Case(
            npz(labels=np.frombuffer(b"\1" * 4 * COUNT, "<U1")), refused="holds text with letters that do not exist"
        ),
        "npz: half of a pair": Case(
            npz(labels=np.array(["a", "\ud83d"] * 12)),
            refused="class '\\ud83d' has a name with bytes that are not UTF-8",
        ),
        "npz: half of a pair in class_names": Case(
            npz(class_names=np.array(["a", "\ud83d"])),
            refused="class '\\ud83d' has a name with bytes that are not UTF-8",
        ),
        "npz: dates as labels": Case(
            npz(labels=np.array(["2024-01-01", "2024-02-01"] * 12, "M8[D]")), refused="'labels' holds datetime64[D]"
        ),
    }


# --- HDF5 ---------------------------------------------------------------------------------------------------------


def hdf5() -> dict[str, Case]:
    def missing(name: str, **options: Any) -> Callable[[h5py.File], object]:
        """An array that was created and never written."""
        shape = (COUNT, 16, 16, 3) if name == "images" else (COUNT,)
        return lambda file: file.create_dataset(name, shape, options.get("dtype", "u1"), chunks=options.get("chunks"))

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((COUNT, 16, 16, 3), "u1")
        layout[:] = h5py.VirtualSource("gone.h5", "images", (COUNT, 16, 16, 3))
        file.create_virtual_dataset("images", layout)

    enum = h5py.enum_dtype({"CAT": 0, "DOG": 1}, basetype="i1")
    whole = _bytes_of_good()
    return {
        "h5: a group in place of an array": Case(
            h5(lambda file: file.create_group("labels"), labels=None), refused="has 'images' but no 'labels'"
        ),
        "h5: a link to nothing": Case(
            h5(lambda file: file.__setitem__("labels", h5py.SoftLink("/gone")), labels=None),
            refused="has 'images' but no 'labels'",
        ),
        "h5: a link to itself": Case(
            h5(lambda file: file.__setitem__("labels", h5py.SoftLink("/labels")), labels=None),
            refused="has 'images' but no 'labels'",
        ),
        "h5: a link within the file": Case(
            h5(lambda file: file.__setitem__("labels", h5py.SoftLink("/y")), labels=None, y=LABELS),
            check=has(COUNT, "arrays that were not used: y", TWO),
        ),
        "h5: a link to another file": Case(_linked, refused="array 'labels' is in another file ("),
        "h5: bytes of another file": Case(_external, refused="array 'images' is in another file ("),
        "h5: a part of another file": Case(
            h5(virtual, images=None), refused="array 'images' is in another file (gone.h5)"
        ),
        "h5: images that were never written": Case(
            h5(missing("images", chunks=(1, 16, 16, 3)), images=None), refused="array 'images' was never written"
        ),
        "h5: labels that were never written": Case(
            h5(missing("labels"), labels=None), refused="array 'labels' was never written"
        ),
        "h5: labels of 8 TB": Case(
            h5(lambda file: file.create_dataset("labels", (10**12,), "f8", chunks=(1000,)), labels=None),
            refused="array 'labels' was never written",
        ),
        "h5: images without a value": Case(
            h5(
                lambda file: file.create_dataset("images", dtype=h5py.Empty("u1").dtype, data=h5py.Empty("u1")),
                images=None,
            ),
            refused="array 'images' holds no values",
        ),
        "h5: labels without a value": Case(
            h5(lambda file: file.create_dataset("labels", data=h5py.Empty("f4")), labels=None),
            refused="array 'labels' holds no values",
        ),
        "h5: rows of several lengths": Case(
            h5(lambda file: file.create_dataset("images", (COUNT,), h5py.vlen_dtype(np.uint8)), images=None),
            refused="array 'images' was never written",
        ),
        "h5: labels of several lengths": Case(
            h5(_ragged, labels=None), refused="array 'labels' holds lists or references; allowed: whole numbers"
        ),
        "h5: references as labels": Case(
            h5(_references, labels=None), refused="array 'labels' holds lists or references; allowed: whole numbers"
        ),
        "h5: opaque labels": Case(
            h5(labels=np.array([b"a", b"b"] * 12, "V4")), refused="array 'labels' holds |V4; allowed: whole numbers"
        ),
        "h5: named numbers": Case(
            h5(lambda file: file.create_dataset("labels", data=LABELS, dtype=enum), labels=None),
            check=has(COUNT, classes=TWO),
        ),
        "h5: text that is not UTF-8, of several lengths": Case(
            h5(
                lambda file: file.create_dataset("labels", data=[b"a", b"\xff"] * 12, dtype=h5py.string_dtype()),
                labels=None,
            ),
            refused="array 'labels' holds text that is not UTF-8",
        ),
        "h5: text of several lengths": Case(
            h5(
                lambda file: file.create_dataset("labels", data=["é", "bb"] * 12, dtype=h5py.string_dtype()),
                labels=None,
            ),
            check=has(COUNT, classes=("bb", "é")),
        ),
        "h5: labels of which half was written": Case(
            h5(lambda file: _half(file), labels=None), refused="array 'labels' was only written in part (3 of 6 chunks)"
        ),
        "h5: cut": Case(written(whole[: len(whole) // 2], "set.h5"), refused="not readable as HDF5: "),
        "h5: a signature alone": Case(written(b"\x89HDF\r\n\x1a\n", "set.h5"), refused="not readable as HDF5: "),
        "h5: an image": Case(written(b"\x89PNG\r\n\x1a\n", "set.h5"), refused="not readable as HDF5: "),
        "h5: an npz": Case(written(archive({}), "set.h5"), refused="not readable as HDF5: "),
    }


def _bytes_of_good() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, value in GOOD.items():
            file[name] = value
    return stream.getvalue()


def _linked(folder: Path) -> Path:
    with h5py.File(folder / "other.h5", "w") as file:
        file["y"] = LABELS
    return h5(lambda file: file.__setitem__("labels", h5py.ExternalLink("other.h5", "/y")), labels=None)(folder)


def _external(folder: Path) -> Path:
    (folder / "secret").write_bytes(IMAGES.tobytes())
    shape, place = IMAGES.shape, [(str(folder / "secret"), 0, IMAGES.nbytes)]
    return h5(lambda file: file.create_dataset("images", shape, "u1", external=place), images=None)(folder)


def _half(file: h5py.File) -> None:
    rows = file.create_dataset("labels", (COUNT,), "i4", chunks=(4,))
    rows[: COUNT // 2] = LABELS[: COUNT // 2]


def _ragged(file: h5py.File) -> None:
    rows = file.create_dataset("labels", (COUNT,), h5py.vlen_dtype(np.int32))
    for row in range(COUNT):
        rows[row] = np.arange(row % 3)


def _references(file: h5py.File) -> None:
    rows = file.create_dataset("labels", (COUNT,), h5py.ref_dtype)
    for row in range(COUNT):
        rows[row] = file["images"].ref


CASES: dict[str, Case] = {**types(), **names(), **archives(), **hdf5()}
