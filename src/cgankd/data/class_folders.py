"""A folder with one sub-folder of images per class, which may be below folders for the splits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, first_of
from cgankd.core.numbers import counted
from cgankd.core.paths import TABLE_FILES
from cgankd.data.folder_tree import Folder, Tree, scan
from cgankd.data.image_files import SUFFIXES, FilePictures
from cgankd.data.label_text import clean
from cgankd.data.listing import TEST, TRAIN, VAL, Listing, NoSuchColumn
from cgankd.data.split_names import ALLOWED, split_inside, split_of, splits_of

UNLABELLED = ("unlabelled", "unlabeled")
CHOICES = (
    "data.split_folders=true (they are splits, and folders of other names are left out) or data.split_folders=false "
    "(all are classes)"
)


def listing(folder: Path, settings: DataSettings, tree: Tree | None = None) -> Listing:
    """The images in ``folder``, sorted by path; each class is a folder, whose sub-folders may hold images too.

    tree: the folder's content, if it has been scanned. Raises UserError for a folder without images or class folders,
    an empty class, columns that only a table has, and where it is unclear whether folders are splits or classes.
    """
    for key, value in (("label_column", settings.label_column), ("group_column", settings.group_column)):
        if value is not None:
            raise NoSuchColumn(
                f"data.{key}={value!r}, but {folder} has no metadata.csv; a folder per class has no columns"
            )
    tree = scan(folder) if tree is None else tree
    top, apart = _without_unlabelled(tree.top, settings)
    parts, notes = _parts(top, settings.split_folders)
    paths: list[Path] = []
    labels: list[str] = []
    splits: list[int] = []
    for split, home in parts:
        for child in home.folders:
            images = child.all_images()
            if not images:
                raise UserError(
                    f"{child.path}: the class has no images; allowed: files that end in {', '.join(SUFFIXES)}"
                )
            paths += images
            labels += [child.name] * len(images)
            splits += [split] * len(images)
    if len(set(labels)) < 2 and (hint := _other_tables(top)):
        raise UserError(f"{folder}: has one class folder, {labels[0]!r}; at least two are needed{hint}")
    used = [child for _, home in parts for child in home.folders]
    same = _read_as_one([child.name for child in used])
    others = sum(child.all_others() for child in used) + sum(home.others for _, home in parts)
    not_images = counted(others, "file that is no image was", "files that are not images were")
    beside = sum(len(home.images) for _, home in parts)
    loose = counted(beside, "image was", "images were")
    return Listing(
        where=str(folder),
        pictures=FilePictures(paths),
        labels=labels,
        splits=np.asarray(splits, dtype=np.int64),
        place=lambda row: str(paths[row]),
        folders=True,
        notes=(
            *(f"{not_images} left out",) * (others > 0),
            *(f"{loose} left out: beside the class folders, in none of them",) * (beside > 0),
            *apart,
            *notes,
            *same,
            *_inner_folders(used),
            *tree.notes(),
        ),
    )


def unlabelled_folders(top: Folder) -> list[Folder]:
    """Folders whose name says that their images have no labels, beside the folders of classes or splits."""
    inner = [folder for home in [top, *top.folders] for folder in home.folders]
    return [folder for folder in inner if folder.name.casefold() in UNLABELLED and folder.all_images()]


def _without_unlabelled(top: Folder, settings: DataSettings) -> tuple[Folder, list[str]]:
    """The folder without those of images that have no labels, which are no class; and a note on those not used."""
    if settings.split_folders is False:  # all are classes
        return top, []
    used = None if settings.unlabelled is None else Path(settings.unlabelled).resolve()
    notes = [
        f"{folder.path} was left out: its images have no labels; data.unlabelled={folder.path} uses them"
        for folder in unlabelled_folders(top)
        if folder.path.resolve() != used
    ]

    def is_class(folder: Folder) -> bool:
        if folder.name.casefold() in UNLABELLED:
            return False
        if used is None or folder.path.resolve() != used:
            return True
        notes.append(f"{folder.path} is no class, because data.unlabelled names it")
        return False

    def without(home: Folder) -> Folder:
        return dataclasses.replace(home, folders=list(filter(is_class, home.folders)))

    return without(dataclasses.replace(top, folders=[without(home) for home in top.folders])), notes


def _read_as_one(names: list[str]) -> list[str]:
    """A note where folders of different names are one class."""
    spellings: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        spellings.setdefault(clean(name), []).append(name)
    groups = [" and ".join(map(ascii, group)) for group in spellings.values() if len(group) > 1]
    note = (
        "folders whose names differ only in blanks around them or in their Unicode form were read as one class: "
        f"{first_of(groups, most=3)}"
    )
    return [note] if groups else []


def _other_tables(top: Folder) -> str:
    """A hint at tables that may name the images."""
    found = sorted(path for path in top.path.iterdir() if path.suffix.lower() in TABLE_FILES | {".xlsx"})
    if not found:
        return ""
    path = found[0]
    if path.suffix.lower() == ".xlsx":
        return f" (where {path.name} names the images: save it as CSV UTF-8, and give that file as the source)"
    return f" (where {path.name} names the images: give {path} as the source)"


def _data_files(top: Folder) -> str:
    """A hint at files in the folder that hold whole data sets."""
    files = [path for path in sorted(top.path.iterdir()) if path.suffix.lower() in {".h5", ".hdf5", ".npz"}]
    return f"; {files[0].name} in this folder may hold images: give {files[0]}" if files else ""


def _inner_folders(classes: list[Folder]) -> list[str]:
    """A note where class folders hold further folders, which may be meant as classes."""
    inner = [[folder.name for folder in child.folders if folder.all_images()] for child in classes]
    if max(map(len, inner), default=0) < 2:
        return []  # such as CLASS/images/
    names = [f"{child.name}/{name}" for child, own in zip(classes, inner, strict=True) for name in own]
    return [
        f"images of folders inside class folders ({first_of(names, most=3)}) belong to the class of the upper folder; "
        "to be classes, these folders must be one level higher"
    ]


def _parts(top: Folder, setting: bool | None) -> tuple[list[tuple[int, Folder]], tuple[str, ...]]:
    """(split, folder of its class folders) of each split; and notes."""
    if not top.folders:
        images = f"{counted(len(top.images), 'image', 'images')}, but " if top.images else ""
        raise UserError(
            f"{top.path}: has {images}neither a metadata.csv nor a folder per class; allowed: one of the two, "
            f"and class folders may be below train/, val/ and test/{_other_tables(top)}{_data_files(top)}"
        )
    splits = _splits(top, setting)
    if splits is None:
        _check_classes(top, setting)
        return [(TRAIN, top)], ()
    parts = [(split, home) for split, home in zip(splits, top.folders, strict=True) if split is not None]
    for _, home in parts:
        if not home.folders:
            hint = _other_tables(top)
            raise UserError(f"{home.path}: has no folder per class; a split holds one for each class{hint}")
    left = [home.name for split, home in zip(splits, top.folders, strict=True) if split is None]
    read = ", ".join(f"{home.name} ({('training', 'validation', 'test')[split]})" for split, home in parts)
    usual = all(home.name in ("train", "val", "test") for _, home in parts)
    return parts, (
        *(f"folders read as splits: {read}",) * (not usual),
        *(f"folders that are no splits were left out: {', '.join(left)}",) * bool(left),
    )


def _splits(top: Folder, setting: bool | None) -> list[int | None] | None:
    """The split of each sub-folder (None: it is left out); or None where all sub-folders are classes."""
    if setting is False:
        return None
    folders = top.folders
    splits = splits_of([child.name for child in folders])
    if setting is True:
        if TRAIN not in splits:
            raise UserError(
                f"{top.path}: data.split_folders=true, but no folder in it names training; known: {ALLOWED}"
            )
        return splits
    named = [child for split, child in zip(splits, folders, strict=True) if split is not None]
    rest = [child for split, child in zip(splits, folders, strict=True) if split is None]
    flat = not any(child.folders for child in folders)
    if not named:
        for child in rest:
            if split_inside(child.name) is not None and any(inner.images for inner in child.folders):
                raise UserError(
                    f"{child.path}: may be a split or a class, because its name contains a split's name; {CHOICES}"
                )
        words = {split_inside(child.name): child.name for child in rest}
        if flat and TRAIN in words and (other := words.get(TEST, words.get(VAL))):
            raise UserError(
                f"{top.path}: folders such as {words[TRAIN]}/ and {other}/ name a split and perhaps a class; allowed: "
                "a folder for each split, with a folder for each class in it (train/cat/, test/cat/), or "
                "data.split_folders=false (all are classes)"
            )
        return None
    if not rest and TRAIN in splits:
        return splits
    if flat and [child.name.lower() for child in named] == ["train"]:
        return None  # a class of trains
    if TRAIN in splits:
        train = folders[splits.index(TRAIN)].name
        raise UserError(f"{rest[0].path}: is beside {train}/; allowed there: {ALLOWED}; or {CHOICES}")
    raise UserError(
        f"{named[0].path}: names a split, but no folder beside it names training, so it is not clear whether these "
        f"folders are splits or classes; allowed: train/ beside it, or {CHOICES}"
    )


def _check_classes(top: Folder, setting: bool | None) -> None:
    """UserError for class folders that contain splits, and for a folder whose only sub-folder is the data set."""
    only = top.folders[0]
    if len(top.folders) == 1 and only.folders and not only.images:
        raise UserError(f"{top.path}: has only one folder, {only.name}/, which contains folders; give {only.path}")
    for child in top.folders if setting is None else ():
        inner = [split_of(part.name) for part in child.folders]
        if TRAIN in inner and (TEST in inner or VAL in inner):
            example = child.folders[inner.index(TRAIN)]
            raise UserError(
                f"{example.path}: names a split inside a class folder; allowed: {example.name}/{child.name}/, or "
                "data.split_folders=false (all images of a class folder belong to one split)"
            )
