"""UTKFace: faces with their age in years, 1 to 60 as in the paper, from the authors' HDF5 or the public folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import arrays, public
from cgankd.data.image_files import FilePictures
from cgankd.data.listing import TRAIN, Listing
from cgankd.tasks import Regression

DESCRIPTION = "faces of ages 1 to 60 (years), 64x64 colour (to be fetched)"
TASK = Regression(1.0, 60.0, "years")
NAME = re.compile(r"(\d+)_[01]_[0-4]_\d+\.jpg\.chip\.jpg")  # age, gender, race, date and time


def listing(settings: DataSettings) -> Listing:
    """UTKFace_64x64_prop_0.8.h5 (published split), UTKFace_64x64.h5 (no split), or AGE_GENDER_RACE_DATE files."""
    public.check_columns("utkface", settings)
    path = public.find(
        "utkface",
        "UTKFace_*_prop_0.8.h5",
        "UTKFace_*.h5",
        "*.jpg.chip.jpg",
        "*/*.jpg.chip.jpg",
        "*/*/*.jpg.chip.jpg",
    )
    source = arrays.h5_listing(path, settings) if path.suffix == ".h5" else _folder(path.parent)
    return public.scalar(source, TASK)


def _folder(folder: Path) -> Listing:
    matches = [(path, NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.jpg"))]
    paths = [path for path, match in matches if match]
    ages = [int(match[1]) for _, match in matches if match]
    if not paths:
        raise UserError(f"{folder}: has no file with a name like AGE_GENDER_RACE_DATE.jpg.chip.jpg")
    others = len(matches) - len(paths)
    return Listing(
        where=str(folder),
        pictures=FilePictures(paths),
        labels=np.asarray(ages, dtype=np.int64),
        splits=np.full(len(paths), TRAIN, dtype=np.int64),
        place=lambda row: str(paths[row]),
        notes=(f"{others:,} files whose names lack age, gender, race or date were left out",) * (others > 0),
    )
