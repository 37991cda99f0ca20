"""``data.skip_bad``: go on without the images that can't be read or have no label, and list them in rejected.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgankd.core.errors import UserError, first_of
from cgankd.core.files import write_text
from cgankd.core.paths import REJECTED
from cgankd.data.decoded import unusable
from cgankd.data.image_files import MISSING, EncodedPictures, FilePictures
from cgankd.data.labelling import read_column, unlabelled
from cgankd.data.listing import Listing, Rejected

WHERE = f"; {REJECTED} in the folder of the run lists them"  # the end of notes on images that were left out


def without_bad(listing: Listing, used: bool = False) -> Listing:
    """The listing without the images that can't be read, and without those that a table gives no label.

    It names them in ``rejected``. used: whether ``data.unlabelled`` is set. All images are decoded. Raises UserError
    where no image can be read, and for arrays, because they are read as a whole or not at all.
    """
    if not isinstance(listing.pictures, EncodedPictures):
        raise UserError(f"data.skip_bad=True is for image files, not for {listing.where}; leave data.skip_bad out")
    errors = unusable(listing.pictures)
    total = len(listing.splits)
    if len(errors) == total:
        raise listing.pictures.refusal([*errors.values()])
    empty = [row for row in unlabelled(listing) if row not in errors]
    if len(errors) + len(empty) in (0, total):  # where no label is left, reading them is an error
        return listing
    rejected = {row: Rejected(str(error.path), error.reason) for row, error in errors.items()}
    rejected |= {row: Rejected(listing.place(row), "the label is empty") for row in empty}
    kept = listing.keep(np.setdiff1d(np.arange(total), list(rejected)))
    if isinstance(kept.labels, np.ma.MaskedArray):
        kept = dataclasses.replace(kept, labels=kept.labels.data)
    missing = sum(error.reason == MISSING for error in errors.values())
    counts = {"can't be read": len(errors) - missing, "could not be found": missing, "came without a label": len(empty)}
    notes = [
        f"{n:,} of {total:,} images {what} and {'was' if n == 1 else 'were'} left out{WHERE}"
        for what, n in counts.items()
        if n
    ]
    if empty and not used:
        notes.append(f"students can learn from images without a label too: data.unlabelled={_folder(listing, empty)}")
    notes += _lost_classes(listing, kept)
    return dataclasses.replace(
        kept, rejected=tuple(rejected[row] for row in sorted(rejected)), notes=(*kept.notes, *notes)
    )


def _folder(listing: Listing, rows: Sequence[int]) -> str:
    """The folder that holds the images of these rows; FOLDER where they are no files."""
    if not isinstance(listing.pictures, FilePictures):
        return "FOLDER"
    return os.path.commonpath([listing.pictures.paths[row].parent for row in rows])


def _lost_classes(listing: Listing, kept: Listing) -> list[str]:
    """A note on the classes of which ``kept`` has no image."""
    if not listing.folders and None not in read_column(kept).values:  # of scalars every image may have its own
        return []
    lost = sorted(set(map(str, listing.labels)) - {"", *map(str, kept.labels)})
    what = "class" if len(lost) == 1 else f"{len(lost):,} classes:"
    return [f"no image is left of {what} {first_of(lost, most=3)}"] * bool(lost)


def write_rejected(rejected: Sequence[Rejected], folder: Path) -> None:
    """Write rejected.csv, a row of path and reason for each image; without any, an earlier file is removed."""
    if not rejected:
        (folder / REJECTED).unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Rejected._fields, *rejected])
    # a name whose bytes are not UTF-8 is written with escapes
    write_text(folder / REJECTED, text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8"))
