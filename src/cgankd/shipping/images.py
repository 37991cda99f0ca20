"""The generated images of a run as a data set of its own: in a common layout, with a data card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cgankd.config.settings import NoSubsampling
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.files import write_text
from cgankd.core.progress import SILENT, Progress
from cgankd.core.store import Artifact, open_artifact
from cgankd.data.imageset import ImageSet
from cgankd.shipping.data_card import CARD, PAIRS, Origin, data_card
from cgankd.shipping.finished import WITH_FAKES, FinishedRun
from cgankd.shipping.image_columns import LeavingImages, leaving
from cgankd.shipping.image_formats import WRITERS
from cgankd.shipping.near_copies import NearCopies, near_copies, write_pairs
from cgankd.shipping.upload import new_place
from cgankd.synthesis.store import StoredFakes


@dataclasses.dataclass(frozen=True)
class ExportedImages:
    """What was written. note: why the card says nothing about near copies; empty where it does."""

    images: int
    row: str
    near: NearCopies | None
    note: str


def export_images(
    run: Path, out: str, *, to: str = "imagefolder", row: str | None = None, progress: Progress = SILENT
) -> ExportedImages:
    """Write the generated images of a finished run to ``out``, with all columns and a data card.

    out: a new folder, or an address that fsspec writes to, where nothing is yet. to: imagefolder, parquet, webdataset
    or hdf5. row: whose student's images; None: cgan, or the first with generated images. The run's data set is read
    again, so that the card can compare the images with the training images; where this is not possible, the card says
    why. Raises UserError for what the user can mend; unless an upload failed, nothing is then at ``out``.
    """
    if to not in WRITERS:
        raise UserError(f"--to {to}: allowed are {', '.join(WRITERS)}")
    finished = FinishedRun.open(run)
    row, artifact = _synthesis(finished, row)
    recipe = finished.recipe()
    origin = Origin(finished, recipe, row, artifact, to, Path(out).name)
    images = _leaving(origin)
    if not len(images):
        raise UserError(f"{run}: row {row!r} has no generated image, because the filter or the draws left none")
    with new_place(out, progress) as folder:
        with progress.bar(f"export {len(images):,} images", len(images)) as bar:
            WRITERS[to](images, folder, bar)
        splits, note = finished.images(recipe, progress)
        near = None
        if splits is not None:
            near = near_copies(images.images, splits.train, splits.val, progress)
            write_pairs(near, folder / PAIRS)
        write_text(folder / CARD, data_card(origin, images, near, note))
    return ExportedImages(len(images), row, near, note)


def processed(run: Path, row: str | None = None) -> ImageSet:
    """The generated images of a finished run as the row's student saw them, mapped into memory; no data set is needed.

    row: None: cgan, or the first with generated images. Raises UserError where there are none.
    """
    finished = FinishedRun.open(run)
    row, artifact = _synthesis(finished, row)
    origin = Origin(finished, finished.recipe(), row, artifact, "", "")
    images = StoredFakes(artifact, origin.replace).open()
    return dataclasses.replace(images, names=finished.task.answer_names)


def _synthesis(finished: FinishedRun, row: str | None) -> tuple[str, Artifact]:
    """The row, and the artifact of its generated images."""
    rows = finished.results["artifacts"].get("synthesis", {})
    if not rows:
        raise UserError(
            f"{finished.folder} has no row with generated images, so there are none to export; {WITH_FAKES}"
        )
    if row is None:
        row = "cgan" if "cgan" in rows else next(iter(rows))
    if row not in rows:
        raise UserError(
            f"{finished.folder} has no generated images of a row {row!r}{did_you_mean(row, rows)}; rows: "
            f"{', '.join(rows)}"
        )
    return row, open_artifact(finished.folder / rows[row])


def _leaving(origin: Origin) -> LeavingImages:
    artifact, replace = origin.synthesis, origin.replace
    requested, relabelled = StoredFakes(artifact).open(), StoredFakes(artifact, replace).open()
    subsampled = artifact.summary["subsampling"] != NoSubsampling().kind
    return leaving(requested, relabelled, origin.run.task, replace == "hard", subsampled)
