"""Steering Angle: road scenes with the steering wheel's angle in degrees, from the authors' HDF5 or data.txt.

The range is that of the paper's experiments, -88.13 to 97.92 degrees; images outside it are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data import arrays, public
from cgankd.data.image_files import FilePictures
from cgankd.data.listing import TRAIN, Listing
from cgankd.tasks import Regression

DESCRIPTION = "road scenes with the steering wheel's angle (degrees), 64x64 colour (to be fetched)"
TASK = Regression(-88.13, 97.92, "degrees")


def listing(settings: DataSettings) -> Listing:
    """SteeringAngle_64x64_prop_0.8.h5 (published split), SteeringAngle_64x64.h5 (no split), or a data.txt."""
    public.check_columns("steering-angle", settings)
    path = public.find(
        "steering-angle", "SteeringAngle_*_prop_0.8.h5", "SteeringAngle_*x??.h5", "data.txt", "*/data.txt"
    )
    source = arrays.h5_listing(path, settings) if path.suffix == ".h5" else _folder(path)
    return public.scalar(source, TASK)


def _folder(table: Path) -> Listing:
    """Lines ``FILE ANGLE`` or ``FILE ANGLE,DATE TIME``; images beside data.txt or in data/ beside it."""
    paths: list[Path] = []
    angles: list[float] = []
    lines: list[int] = []
    inner = table.parent / "data"
    folder = inner if inner.is_dir() else table.parent
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        file, _, rest = line.strip().partition(" ")
        try:
            angle = float(rest.split(",")[0])
        except ValueError:
            raise UserError(
                f"{table}, line {number}: found {line[:40]!r}; allowed: FILE ANGLE, or FILE ANGLE,DATE TIME"
            ) from None
        path = folder / Path(file).name
        if not path.is_file():
            raise UserError(f"{table}, line {number}: file {file!r} is not in {folder}")
        paths.append(path)
        angles.append(angle)
        lines.append(number)
    return Listing(
        where=str(table),
        pictures=FilePictures(paths),
        labels=np.asarray(angles, dtype=np.float64),
        splits=np.full(len(paths), TRAIN, dtype=np.int64),
        place=lambda row: f"{table}, line {lines[row]}",
        notes=("neighbouring frames are similar, so scores on a randomly drawn test split are too good",),
    )
