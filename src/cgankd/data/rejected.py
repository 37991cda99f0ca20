"""``data.skip_bad``: go on without the images that can't be read, and list them in rejected.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgankd.core.errors import UserError, first_of
from cgankd.core.files import write_text
from cgankd.core.numbers import number
from cgankd.data.decoded import unusable
from cgankd.data.image_files import EncodedPictures
from cgankd.data.listing import Listing, Rejected

FILE = "rejected.csv"


def without_bad(listing: Listing) -> Listing:
    """The listing without the images that can't be read, which it names in ``rejected``. All images are decoded.

    Raises UserError where no image can be read, and for arrays, because they are read as a whole or not at all.
    """
    if not isinstance(listing.pictures, EncodedPictures):
        raise UserError(f"data.skip_bad=True is for image files, not for {listing.where}; leave data.skip_bad out")
    errors = unusable(listing.pictures)
    total = len(listing.splits)
    if not errors:
        return listing
    if len(errors) == total:
        raise listing.pictures.refusal([*errors.values()])
    kept = listing.keep(np.setdiff1d(np.arange(total), list(errors)))
    notes = [f"{len(errors):,} of {total:,} images can't be read and were left out; a run lists them in {FILE}"]
    lost = sorted(set(map(str, listing.labels)) - set(map(str, kept.labels)))
    if not listing.folders:  # of scalars every image may have its own
        lost = [label for label in lost if number(label) is None]
    if lost:
        notes.append(f"no image is left of {len(lost):,} classes: {first_of(lost, most=3)}")
    rejected = tuple(Rejected(str(error.path), error.reason) for error in errors.values())
    return dataclasses.replace(kept, rejected=rejected, notes=(*kept.notes, *notes))


def write_rejected(rejected: Sequence[Rejected], folder: Path) -> None:
    """Write rejected.csv, a row of path and reason for each image; without any, an earlier file is removed."""
    if not rejected:
        (folder / FILE).unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Rejected._fields, *rejected])
    # a name whose bytes are not UTF-8 is written with escapes
    write_text(folder / FILE, text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8"))
