"""``load``: from ``data.source`` (a built-in name, a folder, a file, an address) to train, pool, val and test.

The steps are the same for every source: list its content, read the labels, split the rows, decode the images.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.mapped_rows import Images, taken
from cgankd.core.numbers import counted, distinct_texts
from cgankd.core.paths import is_file, is_folder
from cgankd.core.progress import SILENT, Progress
from cgankd.data import (
    arrays,
    arrow_tables,
    chairs,
    cifar,
    class_folders,
    digits,
    fashion,
    fashion_mnist,
    hub,
    imagenet,
    metadata_csv,
    rc49,
    steering,
    tar_shards,
    utkface,
)
from cgankd.data.decoded import Decoded
from cgankd.data.depth import bits_in_use
from cgankd.data.file_names import file_names
from cgankd.data.folder_tree import TABLES, scan
from cgankd.data.image_files import UnusableImages
from cgankd.data.imageset import ImageSet, Splits
from cgankd.data.importing import plan
from cgankd.data.label_text import clean
from cgankd.data.labelling import make_task, merged, read_labels
from cgankd.data.listing import TRAIN, Ints, Listing, NoSuchColumn, Pictures
from cgankd.data.path_groups import grouped
from cgankd.data.rejected import without_bad
from cgankd.data.remote import at_hand
from cgankd.data.repeated import repeated
from cgankd.data.split import divide
from cgankd.data.unlabelled import with_unlabelled
from cgankd.tasks import Task

Count = Callable[[int, int], None]
BEYOND = 0.05  # of the training labels' range, by which other labels may leave it without a note

_BUILTIN: Mapping[str, tuple[Callable[[DataSettings], Listing], str]] = {
    "digits": (digits.listing, digits.DESCRIPTION),
    "fashion": (fashion.listing, fashion.DESCRIPTION),
    "rotated-fashion": (fashion.rotated_listing, fashion.ROTATED_DESCRIPTION),
    "fashion-mnist": (fashion_mnist.listing, fashion_mnist.DESCRIPTION),
    "cifar10": (cifar.listing_10, cifar.DESCRIPTION_10),
    "cifar100": (cifar.listing_100, cifar.DESCRIPTION_100),
    "tiny-imagenet": (imagenet.tiny_listing, imagenet.TINY_DESCRIPTION),
    "imagenet-100": (imagenet.listing_100, imagenet.DESCRIPTION_100),
    "rc49": (rc49.listing, rc49.DESCRIPTION),
    "utkface": (utkface.listing, utkface.DESCRIPTION),
    "steering-angle": (steering.listing, steering.DESCRIPTION),
    "chairs": (chairs.listing, chairs.DESCRIPTION),
}


def builtin_names() -> dict[str, str]:
    """Name -> one-line description of every data set with a name; the first three come with the package.

    >>> list(builtin_names())[:3]
    ['digits', 'fashion', 'rotated-fashion']
    """
    return {name: description for name, (_, description) in _BUILTIN.items()}


def load(settings: DataSettings, count: Count | None = None, progress: Progress = SILENT) -> Splits:
    """The splits of the data set that ``settings`` describe; images uint8 [N, C, H, W] of one shape.

    ``pool`` does not depend on which of its images are labelled. ``count(done, total)`` counts decoded images;
    ``progress`` shows how files of an address are copied. Raises UserError that names file, row or key for anything
    that can't be used.

    >>> splits = load(DataSettings(source="digits", train_size=100))
    >>> list(splits.train.images.shape), len(splits.pool), len(splits.val), len(splits.test)
    ([100, 1, 16, 16], 1248, 100, 449)
    """
    with at_hand(settings.source, progress) as local, naming_skip_bad(settings.skip_bad):
        address, further = settings.source.rstrip("/"), settings.unlabelled
        if further is not None and local != settings.source and further.startswith(f"{address}/"):
            further = local + further.removeprefix(address)
        own = settings.model_copy(update={"source": local, "unlabelled": further})
        splits = with_unlabelled(_load(own, count, progress), own, progress)
    if local == settings.source:
        return splits
    return dataclasses.replace(
        splits,
        notes=tuple(note.replace(local, address) for note in splits.notes),
        rejected=tuple(image._replace(path=image.path.replace(local, address)) for image in splits.rejected),
    )


@contextmanager
def naming_skip_bad(used: bool) -> Iterator[None]:
    """Errors of images that can't be read name the option that leaves them out, unless it is in use."""
    try:
        yield
    except UnusableImages as error:
        further = "" if used else "; --skip-bad (data.skip_bad=true) goes on without"
        raise UserError(f"{error}{further}") from None


def _load(settings: DataSettings, count: Count | None, progress: Progress) -> Splits:
    listing = list_source(settings)
    labelled = read_labels(listing, settings)
    division = divide(dataclasses.replace(listing, class_names=labelled.names), labelled.values, settings)
    for name, rows in (("validation", division.val), ("test", division.test)):
        if not len(rows):
            raise UserError(
                f"{listing.where}: no image is left for {name}; allowed: several images per label "
                "(data.task=regression if labels are numbers), or splits that contain images"
            )
    owned = np.sort(np.concatenate([division.train, division.rest]))
    training = np.concatenate([owned, division.val])
    own_training = training[listing.splits[training] == TRAIN]  # without a validation split of the source
    task, labels, task_notes = make_task(labelled, own_training, listing, settings)
    pictures = Decoded(listing.pictures, progress)
    kinds = pictures.kinds()
    bits, depth_notes = bits_in_use(pictures, kinds, settings.bits, listing.where)
    shape, shape_notes = plan(kinds, settings, listing.where, bits)

    total, done = len(labels), 0

    def add(images: int) -> None:
        nonlocal done
        done += images
        if count is not None:
            count(done, total)

    images = pictures.read(training, shape, add)
    columns = {} if listing.groups is None else {"group": _numbered(listing.groups, own_training)}

    def part(pixels: Images, rows: Ints) -> ImageSet:
        return ImageSet(pixels, _tensor(labels, rows), {name: _tensor(col, rows) for name, col in columns.items()})

    pool = part(taken(images, slice(len(owned))), owned)
    train_rows = torch.from_numpy(np.searchsorted(owned, division.train)) if len(division.rest) else None
    train = pool if train_rows is None else pool.take(train_rows)
    val = part(taken(images, slice(len(owned), None)), division.val)
    test = part(pictures.read(division.test, shape, add), division.test)
    test = dataclasses.replace(test, files=file_names(listing.pictures, division.test, settings.source))
    rows = np.concatenate([training, division.test])

    def named(places: Sequence[int]) -> tuple[str, ...]:
        return file_names(listing.pictures, rows[places], settings.source)

    beyond = [] if task_notes else _beyond(task, train, val, test)
    further = [*merged(labelled, task), *beyond, *repeated(pool, val, test, task, named)]
    return Splits(
        name=settings.source if settings.source in _BUILTIN else Path(settings.source).resolve().stem,
        task=task,
        train=train,
        pool=pool,
        val=val,
        test=test,
        plan=shape,
        rejected=listing.rejected,
        labelled=train_rows,
        notes=(*listing.notes, *labelled.notes, *task_notes, *depth_notes, *shape_notes, *division.notes, *further),
    )


def load_whole(
    source: str,
    task: Task,
    channels: int,
    size: tuple[int, int],
    where: str,
    label_column: str | None = None,
    progress: Progress = SILENT,
) -> ImageSet:
    """All images of a folder, .csv, .npz, .h5, .parquet or .tar, from all its splits, with labels of an existing task.

    Classes are matched by name; whole numbers that are not names are class indices. ``where`` names the setting in
    messages. label_column: if there is no such column, the labels are read as without it. Raises UserError for images
    of another size or number of channels, and for labels that the task doesn't have.
    """
    # "./digits": a folder or file, never the built-in set of this name
    settings = DataSettings(source=os.path.join(os.curdir, source), task=task.name)  # noqa: PTH118, a Path drops ./
    try:
        listing = list_source(settings.model_copy(update={"label_column": label_column}))
    except NoSuchColumn:
        listing = list_source(settings)
    listing = dataclasses.replace(listing, splits=np.full_like(listing.splits, TRAIN))
    if not isinstance(listing.labels, np.ndarray) and {clean(text) for text in listing.labels} <= set(
        task.answer_names
    ):
        listing = dataclasses.replace(listing, folders=True)  # a class may have the name 007, which is not 7
    values, names, *_ = read_labels(listing, settings)
    images = load_alike(Decoded(listing.pictures, progress), channels, size, f"{where} {source}")
    labels = task.renumbered(torch.from_numpy(values), names or (), f"{where} {source}").to(task.label_dtype)
    task.check_labels(labels, f"{where} {source}")
    return ImageSet(images, labels)


def load_alike(pictures: Pictures | Decoded, channels: int, size: tuple[int, int], where: str) -> Images:
    """All images, uint8 [N, C, H, W]; UserError, beginning with ``where``, where their shape is not the run's."""
    kinds = pictures.kinds()
    bits, _ = bits_in_use(pictures, kinds, None, where)
    if bits < 16:
        raise UserError(f"{where}: images of 16 bits use {bits} of them; allowed: images of 8 bits, as in the run")
    others = [kind for kind in kinds if (kind.height, kind.width) != size]
    if others:  # before the plan, whose advice to set data.size is for the run's own images
        some = "" if len(others) == len(kinds) else "some "
        raise UserError(
            f"{where}: {some}images are {others[0].width}x{others[0].height} pixels; the run's are {size[1]}x{size[0]}"
            ", and these are not resized"
        )
    own, _ = plan(kinds, DataSettings(), where)
    if own.channels != channels:
        raise UserError(f"{where}: images have {own.channels} channels; the run's have {channels}")
    return pictures.read(np.arange(sum(kinds.values())), own, lambda images: None)


def columns(source: str) -> tuple[list[str], bool]:
    """The columns or arrays of a source that settings can name, and whether labels are found without a setting."""
    path = Path(source)
    if is_folder(path) or metadata_csv.is_table(path):
        names = metadata_csv.columns(path)
        shards = [] if names else arrow_tables.parquet_files(path)
        if not shards:
            return names, not names or metadata_csv.LABEL in names
    elif path.suffix.lower() == tar_shards.SUFFIX:
        return [], True
    elif path.suffix.lower() != ".parquet":
        return (arrays.names(path), True) if is_file(path) else ([], True)
    names = arrow_tables.column_names(shards[0] if is_folder(path) else path)
    return names, arrow_tables.LABEL in names


def first_values(source: str, names: Sequence[str], most: int = 1000) -> dict[str, list[str]]:
    """The first values, as text, of some columns of a table or a Parquet file, by column."""
    path = Path(source)
    if metadata_csv.is_table(path) or (is_folder(path) and metadata_csv.columns(path)):
        table = metadata_csv.opened(path)
        return {name: table.columns[name][:most] for name in names if name not in table.unusable}
    file = arrow_tables.parquet_files(path)[0] if is_folder(path) else path
    return arrow_tables.first_values(file, names, most)


def _beyond(task: Task, train: ImageSet, val: ImageSet, test: ImageSet) -> list[str]:
    """A note for each split with labels that are clearly outside the range of the training labels."""
    if not task.continuous or task.deployed_facts.get("wraps"):
        return []
    low, high = float(train.labels.min()), float(train.labels.max())
    allowed = BEYOND * (high - low)
    notes = []
    for name, part in (("validation", val), ("test", test)):
        count = int(((part.labels < low - allowed) | (part.labels > high + allowed)).sum())
        if count:
            ends = " to ".join(distinct_texts([low, high]))
            outside = counted(count, f"{name} label is", f"{name} labels are")
            notes.append(f"{outside} outside the range of the training labels, {ends}")
    return notes


def _numbered(groups: Ints, training: Ints) -> Ints:
    """Groups with new numbers, first those of ``training`` rows, so that a new group in another split changes none."""
    values, members = np.unique(groups, return_inverse=True)
    elsewhere = ~np.isin(values, groups[training])
    return np.asarray(np.argsort(np.argsort(elsewhere, kind="stable"))[members], dtype=np.int64)


def _tensor(values: npt.NDArray[Any], rows: Ints) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values[rows]))


def _refuse_folder_settings(settings: DataSettings) -> None:
    """UserError for settings that only apply to a folder of image files."""
    for name in ("group_pattern", "split_folders"):
        if (value := getattr(settings, name)) is not None:
            raise UserError(f"data.{name}={value!r} is for a folder of image files, not for {settings.source}")
    if settings.source in ("digits", "fashion", "rotated-fashion"):
        for name in ("label_column", "group_column"):
            if (value := getattr(settings, name)) is not None:
                raise UserError(f"data.{name}={value!r} is for a table or arrays, not for {settings.source}")


def list_source(settings: DataSettings) -> Listing:
    """What the source holds, not yet decoded; UserError where it can't be read.

    With ``data.skip_bad`` all images are decoded, and those that can't be read are left out.
    """
    listing = _whole(settings)
    return without_bad(listing, settings.unlabelled is not None) if settings.skip_bad else listing


def _whole(settings: DataSettings) -> Listing:
    builtin = _BUILTIN.get(settings.source)
    if builtin is not None:
        _refuse_folder_settings(settings)
        return builtin[0](settings)
    if settings.source.startswith(hub.PREFIX):
        _refuse_folder_settings(settings)
        return hub.hub_listing(settings)
    path = Path(settings.source)
    if is_folder(path):
        tree = scan(path, strict=not any(is_file(path / name) for name in TABLES))
        tables = any(folder.tables for folder in tree.top.every())
        loose = not any(folder.images for inner in tree.top.folders for folder in inner.every())
        if not tables and loose and (shards := arrow_tables.parquet_files(path)):
            _refuse_folder_settings(settings)
            return arrow_tables.parquet_listing(path, shards, settings)
        if not tables and loose and (shards := tar_shards.tar_files(path)):
            _refuse_folder_settings(settings)
            return tar_shards.tar_listing(path, shards, settings)
        listing = (metadata_csv if tables else class_folders).listing(path, settings, tree)
        return grouped(listing, path, settings)
    if metadata_csv.is_table(path):
        return grouped(metadata_csv.listing(path, settings), path.parent, settings)
    if is_file(path):
        _refuse_folder_settings(settings)
    if path.suffix.lower() == ".parquet" and is_file(path):
        return arrow_tables.parquet_listing(path, [path], settings)
    if path.suffix.lower() == tar_shards.SUFFIX and is_file(path):
        return tar_shards.tar_listing(path, [path], settings)
    if path.suffix.lower() == ".npz" and is_file(path):
        return arrays.npz_listing(path, settings)
    if path.suffix.lower() in {".h5", ".hdf5"} and is_file(path):
        return arrays.h5_listing(path, settings)
    raise UserError(
        f"data.source {settings.source!r} {'is a file of another kind' if is_file(path) else 'does not exist'}"
        f"{did_you_mean(settings.source, _BUILTIN)}; allowed: a folder, a .csv, .npz, .h5, .parquet or .tar file, the "
        f"address of one (s3://bucket/images), {hub.FORM}, or one of {', '.join(_BUILTIN)}"
    )
