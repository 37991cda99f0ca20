"""Tiny ImageNet (200 classes, 64x64) and ImageNet-100, in their published folders or the authors' HDF5 file.

Neither has test labels; as usual in papers, the published validation images are the test split.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import arrays, class_folders, public
from cgankd.data.image_files import SUFFIXES, FilePictures
from cgankd.data.listing import TEST, TRAIN, VAL, Listing

TINY_DESCRIPTION = "100,000 + 10,000 photographs, 200 classes, 64x64 colour (to be fetched)"
DESCRIPTION_100 = "photographs of 100 ImageNet classes, of any size: set data.size (to be fetched)"
TINY_CLASSES, TINY_TRAIN, TINY_TEST = 200, 100_000, 10_000


def tiny_listing(settings: DataSettings) -> Listing:
    """train/CLASS/images/*.JPEG and val/images/*.JPEG with val/val_annotations.txt."""
    name = "tiny-imagenet"
    public.check_columns(name, settings)
    table = public.find(name, "tiny-imagenet-200/val/val_annotations.txt", "val/val_annotations.txt")
    root = table.parent.parent
    paths = sorted(path for path in (root / "train").glob("*/images/*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{root / 'train'}: holds no CLASS/images/*.JPEG; unpack tiny-imagenet-200.zip there again")
    labels = [path.parent.parent.name for path in paths]
    trained = len(paths)
    classes = set(labels)
    for number, (file, label) in enumerate(_annotations(table), start=1):
        if label not in classes:
            raise UserError(
                f"{table}, line {number}: class {label!r} has no training image; allowed: classes that have some"
            )
        paths.append(table.parent / "images" / file)
        labels.append(label)
        if not paths[-1].is_file():
            raise UserError(f"{table}, line {number}: file {file!r} is not in {table.parent / 'images'}")
    return Listing(
        where=str(root),
        pictures=FilePictures(paths),
        labels=labels,
        splits=np.repeat(np.asarray([TRAIN, TEST], dtype=np.int64), [trained, len(paths) - trained]),
        place=lambda row: str(paths[row]),
        folders=True,
        notes=(
            "the published validation images are the test split",
            *public.count_note(len(classes), TINY_CLASSES, "class", "classes"),
            *public.count_note(trained, TINY_TRAIN, "training image", "training images"),
            *public.count_note(len(paths) - trained, TINY_TEST, "test image", "test images"),
        ),
    )


def listing_100(settings: DataSettings) -> Listing:
    """ImageNet_128x128_100Class.h5, or train/CLASS/*.JPEG and val/CLASS/*.JPEG."""
    name = "imagenet-100"
    public.check_columns(name, settings)
    path = public.find(name, "ImageNet_128x128_100Class.h5", "train", "*/train")
    listing = arrays.h5_listing(path, settings) if path.is_file() else class_folders.listing(path.parent, settings)
    splits = np.where(listing.splits == VAL, TEST, listing.splits)
    return dataclasses.replace(
        listing,
        splits=splits,
        notes=(
            *listing.notes,
            *("the published validation images are the test split",) * bool((listing.splits == VAL).any()),
            *public.count_note(len(set(listing.labels)), 100, "class", "classes"),
        ),
    )


def _annotations(table: Path) -> list[tuple[str, str]]:
    """(file, class) of each line; the four numbers after them, a bounding box, are not used."""
    rows = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise UserError(f"{table}, line {number}: found {line[:40]!r}; allowed: FILE, a tab, CLASS, a tab, a box")
        rows.append((fields[0], fields[1]))
    return rows
