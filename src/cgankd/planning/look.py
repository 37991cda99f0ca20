"""What a data set is, before any recipe: its task, sizes, groups, counts, and what is odd about it."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, first_of
from cgankd.core.numbers import distinct_texts
from cgankd.core.paths import is_folder
from cgankd.data import sources
from cgankd.data.class_folders import unlabelled_folders
from cgankd.data.file_names import home
from cgankd.data.folder_tree import scan
from cgankd.data.image_files import FilePictures
from cgankd.data.imageset import ImageSet, Splits
from cgankd.data.labelling import read_labels
from cgankd.data.listing import Listing
from cgankd.data.remote import at_hand
from cgankd.planning import labels, units
from cgankd.planning.columns import label_column
from cgankd.tasks import Task

SIZES = (32, 48, 64)  # sides that are proposed: what trains in minutes on a processor
COLUMNS = {"file_name", "split"}  # of a table, which are no labels
GROUP_COLUMNS = ("group", "subject", "patient", "person", "object", "track", "drive", "plate", "session", "sequence")
FRAME = r"([^/]+)[_-]\d+\.\w+$"  # names such as 00012_00007.png: frames of one track
GROUPED_SHARE = 0.9  # of the files, that must have such names
FRAMES = 3.0  # images of a group, on average, from which names are taken for frames
AS_SAID = "as you said"
RARE = 20  # images of a class, below which it counts as rare
UNEVEN = 10  # times as many images of one class as of another


@dataclasses.dataclass(frozen=True)
class Look:
    """settings: the data section of a recipe. reasons: why each was chosen. facts: a dozen sentences for the user."""

    settings: DataSettings
    splits: Splits
    reasons: Mapping[str, str]
    facts: tuple[str, ...]


def look(source: str, fixed: Mapping[str, object], progress: Callable[[int, int], None] | None = None) -> Look:
    """Read the data set. fixed: data settings that the user gave. Raises UserError as a run does."""
    with at_hand(source) as local, sources.naming_skip_bad(bool(fixed.get("skip_bad"))):
        listing, values, reasons = _chosen(local, fixed, source)
        _choose_size(listing, values, reasons)
        settings = DataSettings.model_validate({**values, "source": source})
        splits = sources.load(settings, progress)
    return Look(settings, splits, reasons, (*_facts(splits), *_odd(listing, values)))


def as_chosen(source: str, fixed: Mapping[str, object]) -> tuple[DataSettings, Mapping[str, str]]:
    """The data settings that a recipe for this source gets, but for the size of images; and why each was chosen."""
    with at_hand(source) as local, sources.naming_skip_bad(bool(fixed.get("skip_bad"))):
        _, values, reasons = _chosen(local, fixed, source)
    settings = DataSettings.model_validate({**values, "source": source})
    return settings, {name: reason for name, reason in reasons.items() if reason != AS_SAID}


def _chosen(source: str, fixed: Mapping[str, object], given: str) -> tuple[Listing, dict[str, object], dict[str, str]]:
    """What the source holds, the data settings without the size of images, and why each was chosen. given: the source,
    or the address of which it is a copy."""
    values: dict[str, object] = {"source": source, **fixed}
    reasons: dict[str, str] = dict.fromkeys(fixed, AS_SAID)
    _choose_columns(source, values, reasons)
    _choose_unlabelled(source, given, values, reasons)
    listing = sources.list_source(DataSettings.model_validate(values))
    _choose_task(listing, values, reasons)
    _choose_unit(listing, values, reasons)
    _choose_groups(listing, home(source), values, reasons)
    return listing, values, reasons


def smaller(looked: Look, share: float) -> int | None:
    """The largest smaller side that may take ``share`` of the time, which falls no faster than the number of pixels.

    Where none may, the smallest; None where there is none, or where the user gave a size.
    """
    size = min(looked.splits.train.size)
    sides = [side for side in SIZES if side < size]
    if looked.reasons.get("size") == AS_SAID or not sides:
        return None
    return max((side for side in sides if (side / size) ** 2 <= share), default=min(sides))


def _choose_columns(source: str, values: dict[str, object], reasons: dict[str, str]) -> None:
    """Which column of a table holds the label, and which column or array names groups."""
    columns, labelled = sources.columns(source)
    groups = [name for name in columns if name.lower() in GROUP_COLUMNS]
    if len(groups) == 1 and not {"group_column", "group_pattern"} & set(values):
        values["group_column"] = groups[0]
        reasons["group_column"] = f"images with equal {groups[0]!r} stay in one split"
    if labelled or "label_column" in values:
        return
    others = [name for name in columns if name not in COLUMNS and name not in groups]
    if not others:
        raise UserError(f"{source}: its table has no column for labels; columns found: {', '.join(columns)}")
    values["label_column"], reasons["label_column"] = label_column(source, sources.first_values(source, others))


def _choose_unlabelled(source: str, given: str, values: dict[str, object], reasons: dict[str, str]) -> None:
    """A folder of images without labels beside the labelled ones."""
    if "unlabelled" in values or not is_folder(Path(source)):
        return
    if found := unlabelled_folders(scan(Path(source), strict=False).top):
        inside = found[0].path.relative_to(source)
        address = f"{given.rstrip('/')}/{inside.as_posix()}"
        values["unlabelled"] = str(found[0].path) if source == given else address
        reasons["unlabelled"] = "its name says that its images have no labels"


def _choose_task(listing: Listing, values: dict[str, object], reasons: dict[str, str]) -> None:
    """Whether labels wrap, and whether whole numbers are amounts."""
    if {"task", "label_range"} & set(values) or values.get("circular") is not None:
        return
    wraps = None if "circular" in values else labels.period(listing, str(values.get("label_column", "label")))
    if wraps is not None:
        values["circular"], reasons["circular"] = wraps
    elif (why := labels.seem_counts(listing)) is not None:
        values["task"], reasons["task"] = "regression", why


def _choose_unit(listing: Listing, values: dict[str, object], reasons: dict[str, str]) -> None:
    """The unit of a scalar, where the name of its column says it and the labels themselves do not."""
    column = str(values.get("label_column", "label"))
    unit = None if "unit" in values or listing.task is not None else units.unit_in(column)
    if unit is None:
        return
    labelled = read_labels(listing, DataSettings.model_validate(values))
    if labelled.names is None and not labelled.unit:
        values["unit"], reasons["unit"] = unit, f"the name of the column {column!r} says so"


def _odd(listing: Listing, values: Mapping[str, object]) -> list[str]:
    """What can be read, but may be a mistake."""
    note = "labels count the images one by one, as row numbers do: is it the right column?"
    said = {"circular", "label_range"} & set(values) or values.get("task") == "classification"
    half = None if said else labels.half_turn(listing, str(values.get("label_column", "label")))
    return [note] * labels.seem_row_numbers(listing) + ([] if half is None else [half])


def _choose_groups(listing: Listing, folder: Path, values: dict[str, object], reasons: dict[str, str]) -> None:
    """Frames of one track, by their names: 00012_00007.png."""
    if not isinstance(listing.pictures, FilePictures) or listing.groups is not None or "group_pattern" in values:
        return
    pattern = re.compile(FRAME)
    paths = [path.relative_to(folder).as_posix() for path in listing.pictures.paths]
    names = [f"{Path(path).parent}/{match[1]}" for path in paths if (match := pattern.search(path))]
    groups = collections.Counter(names)
    per_folder = collections.Counter(Path(name).parent for name in groups)
    several = min(per_folder.values(), default=0) >= FRAMES  # one group for each class would be no group
    if len(names) >= GROUPED_SHARE * len(paths) and several and len(names) >= FRAMES * len(groups):
        values["group_pattern"] = r"(.+)[_-]\d+\.\w+$"
        reasons["group_pattern"] = (
            f"file names look like frames of {len(groups):,} tracks (such as {names[0]!r}); a track stays in one split "
            "(data.group_pattern=null turns this off)"
        )


def _choose_size(listing: Listing, values: dict[str, object], reasons: dict[str, str]) -> None:
    """One side for all images, where they differ or are large."""
    if "size" in values:
        return
    kinds = listing.pictures.kinds()
    sides = sorted(min(kind.width, kind.height) for kind, count in kinds.items() for _ in range(count))
    middle, shapes = sides[len(sides) // 2], {(kind.width, kind.height) for kind in kinds}
    if len(shapes) == 1 and 16 <= middle <= SIZES[-1]:
        return
    size = max((side for side in SIZES if side <= middle), default=SIZES[0])
    values["size"] = size
    alone = "large images take long" if middle > size else "small images are enlarged"
    why = "images differ in size" if len(shapes) > 1 else alone
    reasons["size"] = f"{why} (half have a short side of {middle} pixels or more)"


def _facts(splits: Splits) -> tuple[str, ...]:
    train, task = splits.train, splits.task
    parts = {"training": train, "validation": splits.val, "test": splits.test}
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    height, width = train.size
    facts = [
        f"task: {task.name}, {_labels(task)}",
        *["unit of the label: not known; data.unit=NAME shows one in tables and reports"] * _unit_is_missing(task),
        f"images: {counts}; {width}x{height}, {'colour' if train.channels == 3 else 'grey'}",
        *_histogram(train, task),
        *not_measured(splits),
    ]
    return (*facts, *splits.notes)


def _unit_is_missing(task: Task) -> bool:
    return task.continuous and not task.metric_unit


def not_measured(splits: Splits) -> list[str]:
    """Classes that are not measured, because a split has no image of them."""
    sentences = []
    for name, part in (("validation", splits.val), ("test", splits.test)):
        names, place = splits.task.bins(part.labels)
        empty = [names[n] for n, count in enumerate(torch.bincount(place, minlength=len(names))) if not count]
        if empty and splits.task.answer_names:
            sentences.append(f"no {name} image is of {first_of(empty, most=3)}, so nothing is measured there")
    return sentences


def _labels(task: Task) -> str:
    facts = task.deployed_facts
    if task.answer_names:
        return f"{task.num_outputs} classes"
    ends = f"labels {' to '.join(distinct_texts(facts['range']))} {facts['unit']}".rstrip()
    return f"{ends}, which wrap" if facts.get("wraps") else ends


def _histogram(train: ImageSet, task: Task) -> list[str]:
    """How many training images each class or label range has, and whether that is uneven."""
    names, place = task.bins(train.labels)
    histogram = torch.bincount(place, minlength=len(names)).tolist()
    ordered = sorted(zip(histogram, names, strict=True), key=lambda pair: -pair[0]) if task.answer_names else list(
        zip(histogram, names, strict=True)
    )  # fmt: skip
    shown = [f"{name}: {count:,}" for count, name in ordered]
    if len(shown) > 10:
        shown = [*shown[:4], "...", *shown[-4:]]
    sentences = [f"training images per {task.bin_name}: {', '.join(shown)}"]
    (most, largest), (least, smallest) = max(ordered), min(ordered)
    rare = sum(count < RARE for count in histogram)
    if rare and task.answer_names:
        fewest = f", {smallest} only {least}" if least < RARE else ""
        sentences.append(f"{rare} of {len(names)} classes have fewer than {RARE} training images{fewest}")
    if most > UNEVEN * max(1, least):
        sentences.append(f"uneven: {largest} has {most:,} training images, {smallest} has {least:,}")
    return sentences
