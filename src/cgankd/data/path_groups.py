"""``data.group_pattern``: groups of image files, read from their paths (a track, a person, a plate)."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, first_of
from cgankd.data.image_files import FilePictures
from cgankd.data.listing import Listing


def grouped(listing: Listing, folder: Path, settings: DataSettings) -> Listing:
    """The listing with groups that the pattern reads from each path below ``folder``, with / between folders.

    Raises UserError for a pattern that is not a regular expression or has several groups, for paths that it doesn't
    match, for a source without image files, and where data.group_column is also set.
    """
    pattern = settings.group_pattern
    if pattern is None:
        return listing
    where = f"data.group_pattern={pattern!r}"
    if settings.group_column is not None:
        raise UserError(f"{where} and data.group_column={settings.group_column!r} are both set; allowed: one of them")
    if not isinstance(listing.pictures, FilePictures):
        raise UserError(f"{where} reads paths of image files; {listing.where} has none")
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{where} is not a regular expression: {error}") from None
    if compiled.groups > 1:
        raise UserError(
            f"{where} has {compiled.groups} groups in brackets; allowed: at most one ((?:...) does not count)"
        )
    paths = [Path(os.path.normpath(path.relative_to(folder))).as_posix() for path in listing.pictures.paths]
    matches = [compiled.search(path) for path in paths]
    names = [None if match is None else match[compiled.groups] for match in matches]
    missing = [path for path, name in zip(paths, names, strict=True) if not name]
    if missing:
        raise UserError(
            f"{where} names no group for {len(missing):,} of {len(paths):,} files: {first_of(missing, most=3)}; "
            "allowed: a pattern that matches every path"
        )
    groups = np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)
    sizes = np.bincount(groups)
    each = f"{sizes.min():,}" if sizes.min() == sizes.max() else f"{sizes.min():,} to {sizes.max():,}"
    note = f"{where} makes {len(sizes):,} groups of {each} {'image' if each == '1' else 'images'}, such as {names[0]!r}"
    return dataclasses.replace(listing, groups=groups, notes=(*listing.notes, note))
