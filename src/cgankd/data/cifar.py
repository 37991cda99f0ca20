"""CIFAR-10 and CIFAR-100 in the binary version: records of label bytes and 3,072 pixel bytes.

Read from the .tar.gz or from the unpacked folder. The pickled version is not read.
"""

from __future__ import annotations

import dataclasses
import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import public
from cgankd.data.importing import ArrayPictures
from cgankd.data.listing import TEST, TRAIN, Ints, Listing
from cgankd.tasks import Classification

DESCRIPTION_10 = "60,000 photographs, 10 classes, 32x32 colour (cgankd data get cifar10)"
DESCRIPTION_100 = "60,000 photographs, 100 classes, 32x32 colour (cgankd data get cifar100)"
PIXELS = 3 * 32 * 32
TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000


@dataclasses.dataclass(frozen=True)
class _Layout:
    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    class_names: str
    classes: int
    label_bytes: int  # the last one is the class; CIFAR-100 has the coarse class before it


CIFAR10 = _Layout(
    "cifar10",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    "batches.meta.txt",
    10,
    1,
)
CIFAR100 = _Layout("cifar100", "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 100, 2)


def listing_10(settings: DataSettings) -> Listing:
    """CIFAR-10 with its published split."""
    return _listing(CIFAR10, settings)


def listing_100(settings: DataSettings) -> Listing:
    """CIFAR-100 with its 100 fine classes and its published split."""
    return _listing(CIFAR100, settings)


def _listing(layout: _Layout, settings: DataSettings) -> Listing:
    public.check_columns(layout.name, settings)
    path = public.find(
        layout.name, f"{layout.folder}/{layout.test}", layout.test, f"cifar-{layout.classes}-binary.tar.gz"
    )
    read = _archive(path, layout) if path.name.endswith(".tar.gz") else _folder(path.parent)
    where = str(path if path.name.endswith(".tar.gz") else path.parent)
    names = _class_names(read(layout.class_names), where, layout)
    train = [_records(read(file), f"{where}: {file}", layout) for file in layout.train]
    parts = [part for part in train if part is not None]
    test = _records(read(layout.test), f"{where}: {layout.test}", layout)
    if not parts or test is None:
        raise UserError(f"{where}: files are missing; needed: {', '.join((*layout.train, layout.test))}")
    images, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Listing(
        where=where,
        pictures=ArrayPictures([images, test[0]], [f"{where}: training images", f"{where}: test images"]),
        labels=np.concatenate([labels, test[1]]),
        splits=np.repeat(np.asarray([TRAIN, TEST], dtype=np.int64), [len(labels), len(test[1])]),
        place=lambda row: f"{where}, record {row}",
        task=Classification(names),
        notes=(
            *public.count_note(len(labels), TRAIN_IMAGES, "training image", "training images"),
            *public.count_note(len(test[1]), TEST_IMAGES, "test image", "test images"),
        ),
    )


def _folder(folder: Path) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.is_file() else None

    return read


def _archive(path: Path, layout: _Layout) -> Callable[[str], bytes | None]:
    """Read the needed files of the archive in one pass, without writing any."""
    wanted = {f"{layout.folder}/{name}" for name in (*layout.train, layout.test, layout.class_names)}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name not in wanted:
                    continue
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None:
                    kind = "a link" if member.issym() or member.islnk() else "a folder, a pipe or a device"
                    raise UserError(f"{path}: {member.name} is {kind}; allowed: files")
                contents[member.name] = stream.read()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: is not a complete .tar.gz ({error}); delete it and fetch it again") from None
    return lambda name: contents.get(f"{layout.folder}/{name}")


def _records(content: bytes | None, where: str, layout: _Layout) -> tuple[npt.NDArray[np.uint8], Ints] | None:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N] of one file; None where there is no file."""
    if content is None:
        return None
    size = layout.label_bytes + PIXELS
    if len(content) % size or not content:
        raise UserError(f"{where} has {len(content):,} bytes; allowed: whole records of {size:,} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= layout.classes:
        row = int(labels.argmax())
        raise UserError(
            f"{where}, record {row}: label {labels[row]} is not a class; allowed: 0 to {layout.classes - 1}"
        )
    return records[:, layout.label_bytes :].reshape(-1, 3, 32, 32), labels


def _class_names(content: bytes | None, where: str, layout: _Layout) -> tuple[str, ...]:
    names = tuple((content or b"").decode("utf-8", errors="replace").split())
    if len(set(names)) != layout.classes:
        raise UserError(
            f"{where}: {layout.class_names} names {len(set(names))} classes; needed: that file, with {layout.classes}"
        )
    return names
