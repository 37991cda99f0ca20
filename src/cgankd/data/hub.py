"""``hf://owner/name``: a data set of Hugging Face's hub, read by its own libraries."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError, said
from cgankd.data.arrow_tables import Part, library, listing, pictures
from cgankd.data.image_files import EncodedPictures
from cgankd.data.listing import TRAIN, Listing
from cgankd.data.split_names import split_of

PREFIX = "hf://"
FORM = "hf://OWNER/NAME, with @REVISION and /CONFIG behind it if needed"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w.-]+))?/?")


def hub_listing(settings: DataSettings) -> Listing:
    """All splits of the data set, downloaded once into the library's cache.

    Raises UserError where the address has another form, the library is missing, or the data set can't be read.
    """
    source = settings.source
    tables = _tables(source, "data.source")
    splits = {split: split_of(split) for split in tables}
    if len(splits) == 1:
        splits = dict.fromkeys(splits, TRAIN)
    if TRAIN not in splits.values():
        raise UserError(f"{source}: has the splits {', '.join(splits)}; needed: one that is named train")
    parts = [dataclasses.replace(tables[name], split=split) for name, split in splits.items() if split is not None]
    left = [name for name, split in splits.items() if split is None]
    found = listing(source, parts, settings)
    note = f"splits whose use is not clear were left out: {', '.join(left)}"
    return dataclasses.replace(found, notes=(*found.notes, *[note] * bool(left)))


def hub_pictures(source: str, setting: str) -> EncodedPictures:
    """All images of all splits, whether they have labels or not. Raises UserError as :func:`hub_listing`."""
    return pictures([*_tables(source, setting).values()])


def _tables(source: str, setting: str) -> dict[str, Part]:
    """Each split by its name, as if it was for training. setting: that holds the address, for errors."""
    match = _ADDRESS.fullmatch(source)
    if match is None:
        raise UserError(f"{setting} {source!r} is no address of a data set; allowed: {FORM}")
    datasets = library("datasets", source)
    name, revision, config = match.groups()
    try:
        loaded = datasets.load_dataset(name, config, revision=revision)
        return {
            split: Part(TRAIN, _encoded(datasets, rows), f"{source}, split {split}", _classes(rows), paths=True)
            for split, rows in loaded.items()
        }
    except Exception as error:  # the library raises errors of many kinds: of the network, of the data set
        raise UserError(
            f"{setting} {source!r} can't be read: {said(error)}; needed: a data set of images that is on the hub and "
            "can be reached, or a folder with its files"
        ) from None


def _encoded(datasets: Any, split: Any) -> Any:
    """A split as a pyarrow table, with images as {bytes, path}."""
    for column, feature in split.features.items():
        if isinstance(feature, datasets.Image):
            split = split.cast_column(column, datasets.Image(decode=False))
    return split.with_format("arrow")[:]


def _classes(split: Any) -> dict[str, tuple[str, ...]]:
    features = split.features.items()
    return {column: tuple(feature.names) for column, feature in features if getattr(feature, "names", None)}
