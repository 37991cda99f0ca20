"""``data.unlabelled``: real images without labels, which a teacher answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.core.mapped_rows import Images, taken
from cgankd.core.numbers import counted
from cgankd.core.paths import is_file, is_folder
from cgankd.core.progress import SILENT, Progress
from cgankd.data import arrays, arrow_tables, hub, tar_shards
from cgankd.data.decoded import Decoded, unusable
from cgankd.data.depth import bits_in_use
from cgankd.data.folder_tree import scan
from cgankd.data.image_files import SUFFIXES, EncodedPictures, FilePictures
from cgankd.data.imageset import Splits, UnlabelledImages, contents
from cgankd.data.listing import Pictures, Rejected
from cgankd.data.rejected import WHERE
from cgankd.data.remote import at_hand

SETTING = "data.unlabelled"
ALLOWED = f"a folder of images, an .npz, .h5, .parquet or .tar file, the address of one, or {hub.FORM}"


def with_unlabelled(splits: Splits, settings: DataSettings, progress: Progress = SILENT) -> Splits:
    """The splits with the images of ``data.unlabelled``, in the shape of the labelled ones.

    Images with the pixels of a labelled, validation or test image are left out: the score on images that a student has
    learnt says little. Raises UserError for images that can't be used, and where none is left.
    """
    source = settings.unlabelled
    if source is None:
        return splits
    with at_hand(source, progress) as local:
        pictures = _pictures(local)
        rejected: tuple[Rejected, ...] = ()
        if settings.skip_bad and isinstance(pictures, EncodedPictures):
            pictures, rejected = _usable(pictures)
        images, notes = _decoded(pictures, splits, settings, progress)
    digests, pool = contents(images), contents(splits.pool.images)
    known = {digest for part in (splits.val, splits.test) for digest in contents(part.images)}
    known.update(pool if splits.labelled is None else (pool[row] for row in splits.labelled.tolist()))
    new = torch.tensor([digest not in known for digest in digests])
    notes += _notes(source, len(images), len(images) - int(new.sum()), len(rejected))
    if not new.any():
        raise UserError(
            f"{SETTING} {source}: all {len(images):,} images have the pixels of a labelled, validation or test image; "
            "needed: others"
        )
    of_pool = not known.issuperset(set(digests) & set(pool))
    further = UnlabelledImages(images if new.all() else taken(images, new), of_pool)
    return dataclasses.replace(
        splits, further=further, notes=(*splits.notes, *notes), rejected=(*splits.rejected, *rejected)
    )


def _pictures(source: str) -> Pictures:
    """All images of a source, not yet decoded."""
    if source.startswith(hub.PREFIX):
        return hub.hub_pictures(source, SETTING)
    path = Path(source)
    kind = path.suffix.lower()
    if is_folder(path):
        if files := scan(path).top.all_images():
            return FilePictures(files)
        if shards := arrow_tables.parquet_files(path):
            return arrow_tables.parquet_pictures(shards)
        if shards := tar_shards.tar_files(path):
            return tar_shards.tar_pictures(shards)
        raise UserError(f"{SETTING} {path}: holds no images; allowed: files that end in {', '.join(SUFFIXES)}")
    if not is_file(path):
        raise UserError(f"{SETTING} {path} does not exist; allowed: {ALLOWED}")
    if kind in {".npz", ".h5", ".hdf5"}:
        return arrays.pictures(path)
    if kind == ".parquet":
        return arrow_tables.parquet_pictures([path])
    if kind == tar_shards.SUFFIX:
        return tar_shards.tar_pictures([path])
    raise UserError(f"{SETTING} {path} is a file of another kind; allowed: {ALLOWED}")


def _usable(pictures: EncodedPictures) -> tuple[EncodedPictures, tuple[Rejected, ...]]:
    """The images that can be read, and the others; UserError where none can."""
    errors = unusable(pictures)
    if not errors:
        return pictures, ()
    if len(errors) == len(pictures.items):
        raise pictures.refusal([*errors.values()])
    kept = np.setdiff1d(np.arange(len(pictures.items)), list(errors))
    return pictures.keep(kept), tuple(Rejected(str(error.path), error.reason) for error in errors.values())


def _decoded(
    pictures: Pictures, splits: Splits, settings: DataSettings, progress: Progress
) -> tuple[Images, list[str]]:
    """All images in the shape of the labelled ones, and a note where they had another one."""
    plan, where = splits.plan, f"{SETTING} {settings.unlabelled}"
    assert plan is not None
    decoded = Decoded(pictures, progress)
    kinds = decoded.kinds()
    if any(kind.bits == 16 for kind in kinds):
        known = settings.bits if plan.bits == 16 else plan.bits  # of 16 bits all may be in use, or no image has them
        bits, _ = bits_in_use(decoded, kinds, known, where)
        if bits != plan.bits:
            raise UserError(
                f"{where}: images of 16 bits use {bits} of them, other than the labelled images; allowed: images of 8 "
                "bits, or of as many as the labelled ones use"
            )
    other = sum(count for kind, count in kinds.items() if (kind.height, kind.width) != (plan.height, plan.width))
    grey = plan.channels == 1 and any(not kind.mode.startswith(("L", "1", "I")) for kind in kinds)
    resized = f"{counted(other, 'image was', 'images were')} brought to {plan.width}x{plan.height} pixels"
    notes = [f"{SETTING}: {resized}"] * bool(other)
    notes += [f"{SETTING}: colours were made grey, as the labelled images are"] * grey
    with progress.bar("reading unlabelled images", sum(kinds.values())) as bar:
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            bar.to(done)

        return decoded.read(np.arange(sum(kinds.values())), plan, add), notes


def _notes(source: str, images: int, twice: int, bad: int) -> list[str]:
    notes = [f"{counted(images - twice, 'unlabelled image', 'unlabelled images')} of {source}"]
    if twice:
        were = counted(twice, "image was", "images were")
        notes.append(f"{SETTING}: {were} left out, with the pixels of a labelled, validation or test image")
    if bad:
        were = counted(bad, "image can't be read and was", "images can't be read and were")
        notes.append(f"{SETTING}: {were} left out{WHERE}")
    return notes
