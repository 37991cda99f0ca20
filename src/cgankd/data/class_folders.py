"""A folder with one sub-folder of images per class, perhaps below train/, val/ and test/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.image_files import SUFFIXES, FilePictures
from cgankd.data.listing import SPLIT_WORDS, TRAIN, Listing


def listing(folder: Path, settings: DataSettings) -> Listing:
    """The images in ``folder``, sorted by path; a class is a folder, images may lie deeper in it.

    Raises UserError for a folder without images or class folders, an empty class, or stray folders beside train/.
    """
    for key, value in (("label_column", settings.label_column), ("group_column", settings.group_column)):
        if value is not None:
            raise UserError(
                f"data.{key}={value!r}, but {folder} has no metadata.csv; a folder per class has no columns"
            )
    paths: list[Path] = []
    labels: list[str] = []
    splits: list[int] = []
    others = 0
    for split, class_folder in _class_folders(folder):
        files = [path for path in sorted(class_folder.rglob("*")) if _visible(path, class_folder) and path.is_file()]
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not images:
            raise UserError(
                f"{class_folder}: the class has no images; allowed: files that end in {', '.join(SUFFIXES)}"
            )
        paths += images
        labels += [class_folder.name] * len(images)
        splits += [split] * len(images)
        others += len(files) - len(images)
    return Listing(
        where=str(folder),
        pictures=FilePictures(paths),
        labels=labels,
        splits=np.asarray(splits, dtype=np.int64),
        place=lambda row: str(paths[row]),
        folders=True,
        notes=(f"{others:,} files that are not images were passed over",) * (others > 0),
    )


def _class_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    top = _folders(folder)
    if "train" not in [path.name.lower() for path in top]:
        if not top:
            raise UserError(
                f"{folder}: has neither a metadata.csv nor a folder per class; allowed: either, "
                "the folders perhaps below train/, val/ and test/"
            )
        for path in top:
            yield TRAIN, path
        return
    for split_folder in top:
        split = SPLIT_WORDS.get(split_folder.name.lower())
        if split is None:
            raise UserError(f"{split_folder}: stands beside train/; allowed there: {', '.join(SPLIT_WORDS)}")
        below = _folders(split_folder)
        if not below:
            raise UserError(f"{split_folder}: has no folder per class")
        for path in below:
            yield split, path


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _visible(path, folder))


def _visible(path: Path, folder: Path) -> bool:
    """Not one of the hidden things that operating systems leave behind."""
    return not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
