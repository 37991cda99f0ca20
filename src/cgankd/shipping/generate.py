"""Images from a run's trained generator, at a label that the user names; no data set is needed."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.files import replacing, write_csv
from cgankd.core.run_folder import new_folder
from cgankd.core.runtime import OneDevice
from cgankd.data.metadata_csv import LABEL, NAME
from cgankd.data.preview import grid
from cgankd.data.showing import picture
from cgankd.data.table import FILE
from cgankd.shipping.finished import FinishedRun
from cgankd.tasks import Task


def generate(folder: Path, label: str, count: int, seed: int = 0) -> Tensor:
    """uint8 [count, C, H, W]: the first ``count`` images at a label, in the user's own words (a class, a number).

    Raises UserError where the run has no trained generator, and for a label that the task has not.
    """
    run = FinishedRun.open(folder)
    sampler = run.generator(OneDevice())
    try:
        value = run.task.read_label(label)
    except ValueError as error:
        raise UserError(f"--label {label!r}: {error}") from None
    labels = torch.tensor([value], dtype=run.task.label_dtype)
    run.task.check_labels(labels, "--label")
    targets = run.task.to_target(labels).expand(count)
    return sampler.sample(targets, torch.arange(count), seed)


def write_grid(images: Tensor, path: Path) -> None:
    """A PNG of all images, in rows, about as wide as high."""
    columns = math.ceil(math.sqrt(len(images)))
    with replacing(path) as temporary:
        picture(grid(images, torch.arange(len(images)) // columns)).save(temporary, format="PNG")


def write_files(images: Tensor, task: Task, label: str, folder: Path) -> None:
    """One PNG for each image, and metadata.csv with their label, as a data set is read: a new folder.

    Raises UserError where the folder holds something already, such as the images of another label.
    """
    text = task.label_text(task.read_label(label))
    names = [f"{number:05d}.png" for number in range(len(images))]
    with new_folder(folder) as work:
        for name, image in zip(names, images, strict=True):
            picture(image).save(work / name)
        write_csv(work / NAME, [(FILE, LABEL), *((name, text) for name in names)])
