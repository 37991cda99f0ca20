"""RC-49: 49 rendered chairs at 899 yaw angles (0.1 to 89.9 degrees), from the CcGAN authors' HDF5 file.

Angles with an odd last digit are for training (the file's ``indx_train``), the others for the test.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import arrays, public
from cgankd.data.listing import TEST, TRAIN, Ints, Listing
from cgankd.tasks import Regression

DESCRIPTION = "49 chairs at 899 angles (degrees), 64x64 colour (to be fetched)"
CHAIRS, ANGLES = 49, 899


def listing(settings: DataSettings) -> Listing:
    """RC-49_64x64.h5: ``images`` uint8 [N, 3, 64, 64], ``labels`` [N] in degrees, ``types`` [N], ``indx_train``.

    ``data.group_column=types`` keeps each chair in one split when validation is drawn.
    """
    public.check_columns("rc49", settings, "types")
    path = public.find("rc49", "RC-49_64x64.h5", "RC-49_*.h5")
    stored = arrays.h5_listing(path, settings)
    splits = np.full(len(stored.labels), TEST, dtype=np.int64)
    splits[_training_rows(path, len(splits))] = TRAIN
    scalars = public.scalar(
        dataclasses.replace(
            stored, splits=splits, notes=public.count_note(len(splits), CHAIRS * ANGLES, "image", "images")
        ),
        Regression(0.0, 90.0, "degrees"),
    )
    # Rounded to tenths of a degree, so that equal angles are equal numbers: images are chosen per distinct label.
    return dataclasses.replace(scalars, labels=(np.rint(np.asarray(scalars.labels) * 10) / 10).astype(np.float32))


def _training_rows(path: Path, count: int) -> Ints:
    with h5py.File(path, "r") as file:
        if not isinstance(file.get("indx_train"), h5py.Dataset):
            raise UserError(f"{path}: has no array 'indx_train'; found: {', '.join(file)}")
        rows = np.asarray(file["indx_train"][()])
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or not len(rows) or rows.min() < 0 or rows.max() >= count:
        raise UserError(f"{path}: array 'indx_train' is not a list of rows; allowed: whole numbers, 0 to {count - 1}")
    return rows.astype(np.int64)
