"""Built-in ``digits``: 1,797 handwritten digits that come with scikit-learn; small enough for a first try.

The 8x8 images (values 0 to 16) are enlarged to 16x16 (Pillow, bilinear); a quarter, by class, is the test split.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cgankd.config.settings import DataSettings
from cgankd.data.importing import ArrayPictures
from cgankd.data.listing import TEST, TRAIN, Listing
from cgankd.data.split import hold_out
from cgankd.tasks import Classification

DESCRIPTION = "1,797 handwritten digits, 10 classes, 16x16 grey (scikit-learn)"
TEST_SHARE = 0.25
SIDE = 16


def listing(settings: DataSettings) -> Listing:
    """All digits; the test split depends on ``settings.seed``."""
    table = _table()
    small = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = np.ascontiguousarray(_longer_rows(_longer_rows(small).swapaxes(1, 2)).swapaxes(1, 2))
    labels = table[:, -1].astype(np.int64)
    rows = np.arange(len(labels))
    splits = np.full(len(labels), TRAIN)
    splits[hold_out(rows, labels, None, round(TEST_SHARE * len(labels)), settings.seed, "digits/test")] = TEST
    return Listing(
        where="digits",
        pictures=ArrayPictures([images], ["digits"]),
        labels=labels,
        splits=splits,
        place=lambda row: f"digits, row {row}",
        task=Classification(tuple(str(digit) for digit in range(10))),
        notes=(f"images were enlarged from 8x8 to {SIDE}x{SIDE} pixels (bilinear)",),
    )


def _longer_rows(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [N, H, W] -> [N, H, SIDE]. All rows of all images are one image for Pillow, which enlarges rows alone."""
    rows = Image.fromarray(images.reshape(-1, images.shape[2]))
    return np.asarray(rows.resize((SIDE, rows.height), Image.Resampling.BILINEAR)).reshape(*images.shape[:2], SIDE)


def _table() -> npt.NDArray[np.float64]:
    """The digits [1797, 64 + 1]: 8x8 pixels of 0 to 16, and the class.

    Read from scikit-learn's file without its code, whose import takes as long as torch's.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return np.column_stack([data, target])
