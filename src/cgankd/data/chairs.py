"""``chairs``: a data set like RC-49, rendered from a folder of meshes.

Every mesh has N angles, 90 / N degrees apart; every second angle is for the test, so test angles are not in training.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.extras import MissingPackage
from cgankd.core.files import replacing
from cgankd.core.numbers import counted
from cgankd.data import arrays, public, render
from cgankd.data.listing import Listing
from cgankd.tasks import Regression

DESCRIPTION = "meshes rotated by 0 to 90 degrees, 64x64 colour (cgankd data render FOLDER)"
RANGE = 90.0  # degrees


def default_path() -> Path:
    """The file that ``data.source=chairs`` reads."""
    return public.home() / "chairs" / "chairs.npz"


def listing(settings: DataSettings) -> Listing:
    """The data set of :func:`render_folder`; ``data.group_column=object`` keeps each mesh in one split."""
    public.check_columns("chairs", settings, "object")
    path = default_path()
    if not path.is_file():
        raise UserError(
            f"data.source 'chairs' is not in {path}; cgankd data render FOLDER makes it from .obj or .glb files"
        )
    scalars = public.scalar(arrays.npz_listing(path, settings), Regression(0.0, RANGE, "degrees"))
    return dataclasses.replace(scalars, notes=())  # the unused arrays in the file need no note


def meshes(folder: Path, match: str) -> list[Path]:
    """The .obj and .glb files below ``folder`` whose name without suffix matches the pattern, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; a folder with .obj or .glb files is needed")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in render.SUFFIXES]
    matches = [path for path in paths if fnmatch.fnmatch(path.stem.lower(), match.lower())]
    if not matches:
        raise UserError(f"{folder}: none of its {len(paths):,} .obj and .glb files matches {match!r}")
    return matches


def render_folder(
    folder: Path,
    out: Path,
    angles: int,
    size: int,
    match: str = "*",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, tuple[str, ...]]:
    """Write ``out`` (.npz): x_, y_ (degrees) and object_ of _train and _test, and object_names.

    Returns the number of images, and a sentence for each file without a readable mesh. Raises UserError for fewer
    than 2 meshes or 20 angles.
    """
    if out.suffix != ".npz":
        raise UserError(f"{out} is not an .npz file; allowed: a name that ends in .npz")
    if angles < 20 or size < 16:
        raise UserError(f"{angles} angles of {size} pixels; allowed: 20 angles or more, 16 pixels or more")
    paths = meshes(folder, match)
    degrees = (np.arange(angles) + 0.5) * (RANGE / angles)
    pictures, names, unreadable = [], [], []
    for number, path in enumerate(paths):
        try:
            mesh = render.load_mesh(path).framed()
        except MissingPackage:
            raise
        except UserError as error:
            unreadable.append(str(error))
            continue
        views = []
        for place, angle in enumerate(degrees):
            views.append(render.render(mesh, float(angle), size))
            progress(number * angles + place + 1, len(paths) * angles)
        pictures.append(np.stack(views))
        names.append(path.relative_to(folder).as_posix())
    if len(pictures) < 2:
        raise UserError(
            f"{folder}: {counted(len(pictures), 'readable mesh', 'readable meshes')}; at least two are needed"
        )
    stack = np.stack(pictures)  # [objects, angles, size, size, 3]
    columns: dict[str, Any] = {"object_names": np.asarray(names)}
    for split, chosen in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        part = degrees[chosen].astype(np.float32)
        columns[f"x_{split}"] = stack[:, chosen].reshape(-1, size, size, 3)
        columns[f"y_{split}"] = np.tile(part, len(stack))
        columns[f"object_{split}"] = np.repeat(np.arange(len(stack)), len(part))
    with replacing(out) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **columns)
    return stack.shape[0] * stack.shape[1], tuple(unreadable)
