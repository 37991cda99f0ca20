"""``fashion-mnist``: the whole Fashion-MNIST, from the four gzipped IDX files that Zalando published.

The built-in ``fashion`` is a subset with a black border; here the images keep their 28x28 pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import public
from cgankd.data.fashion import CLASS_NAMES
from cgankd.data.idx import read_gzipped
from cgankd.data.importing import ArrayPictures
from cgankd.data.listing import TEST, TRAIN, Ints, Listing
from cgankd.tasks import Classification

DESCRIPTION = "60,000 + 10,000 garments, 10 classes, 28x28 grey (cgankd data get fashion-mnist says from where)"
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
SIDE = 28
PREFIXES = ("train", "t10k")  # of the files of the training and the test images


def listing(settings: DataSettings) -> Listing:
    """Fashion-MNIST with its published classes and split."""
    public.check_columns("fashion-mnist", settings)
    first = f"{PREFIXES[0]}-images-idx3-ubyte.gz"
    folder = public.find("fashion-mnist", first, f"*/{first}").parent
    (train, train_labels), (test, test_labels) = (read_part(folder, prefix) for prefix in PREFIXES)
    return Listing(
        where=str(folder),
        pictures=ArrayPictures([train, test], [f"{folder}: training images", f"{folder}: test images"]),
        labels=np.concatenate([train_labels, test_labels]),
        splits=np.repeat(np.asarray([TRAIN, TEST], dtype=np.int64), [len(train_labels), len(test_labels)]),
        place=lambda row: f"{folder}, image {row}",
        task=Classification(CLASS_NAMES),
        notes=(
            *public.count_note(len(train_labels), TRAIN_IMAGES, "training image", "training images"),
            *public.count_note(len(test_labels), TEST_IMAGES, "test image", "test images"),
        ),
    )


def read_part(folder: Path, prefix: str) -> tuple[npt.NDArray[np.uint8], Ints]:
    """Images uint8 [N, 28, 28] and labels int64 [N] of the training files (``train``) or the test files (``t10k``).

    Raises UserError for a file that is missing, incomplete or of another form, and for labels that are no class.
    """
    paths = [folder / f"{prefix}-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{folder}: {path.name} is missing; needed: all four files of Fashion-MNIST")
    images, labels = read_gzipped(paths[0], dimensions=3), read_gzipped(paths[1], dimensions=1)
    if images.shape[1:] != (SIDE, SIDE):
        raise UserError(f"{paths[0]}: images are {images.shape[2]}x{images.shape[1]} pixels; allowed: {SIDE}x{SIDE}")
    if len(images) != len(labels) or not len(images):
        raise UserError(f"{paths[1]}: has {len(labels):,} labels for {len(images):,} images; needed: one for each")
    if labels.max() >= len(CLASS_NAMES):
        row = int(labels.argmax())
        raise UserError(
            f"{paths[1]}, row {row}: label {labels[row]} is not a class; allowed: 0 to {len(CLASS_NAMES) - 1}"
        )
    return images, labels.astype(np.int64)
