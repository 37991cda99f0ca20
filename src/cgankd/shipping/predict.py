"""What a student says of image files: opened from a run or from an exported file, images brought to its shape."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cgankd import tasks
from cgankd.core.errors import UserError, first_of
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import OneDevice
from cgankd.core.store import Work
from cgankd.data.folder_tree import is_litter
from cgankd.data.image_files import SUFFIXES, FilePictures
from cgankd.data.listing import Plan
from cgankd.nets.inference import outputs
from cgankd.shipping.finished import FinishedRun, refuse_choice
from cgankd.shipping.formats import OnnxStudent
from cgankd.tasks import Task

FORMATS = ("table", "csv", "json")
MOST = 250  # images that are decoded at once
Model = tuple[Task, Plan, Callable[[Tensor], Tensor]]  # the last: uint8 images -> network outputs


def open_model(source: Path, row: str | None = None, seed: int | None = None) -> Model:
    """The folder of a finished run, or an .onnx file of cgankd export. Raises UserError for anything else."""
    if source.is_dir():
        fabric = OneDevice()
        student = FinishedRun.open(source).student(fabric, row, seed)
        return student.task, student.plan, lambda images: outputs(Work(fabric), student.network, images)
    refuse_choice(source, row, seed)
    exported = OnnxStudent(source)
    task = tasks.from_json(exported.description["task"])
    plan = Plan(**exported.description["input"]["plan"])
    return task, plan, lambda images: task.from_deployed(exported(images))


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and all image files in the folders, sorted; UserError where there are none or one is not there."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            files += [file for file in inside if not is_litter(file.relative_to(path))]
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path} is not there; needed: image files, or folders of them")
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no image files ({', '.join(SUFFIXES)})")
    return files


def readable(files: Sequence[Path]) -> tuple[list[Path], str]:
    """The files that hold an image, and a sentence on those that were left out, or ""; UserError where none is left."""
    pictures = FilePictures(files)
    errors = pictures.unusable()
    if len(errors) == len(files):
        raise pictures.refusal([*errors.values()])
    were = "was" if len(errors) == 1 else "were"
    left = f"{len(errors):,} of {len(files):,} images can't be read and {were} left out: "
    names = first_of([str(files[number]) for number in errors])
    return [file for number, file in enumerate(files) if number not in errors], (left + names) * bool(errors)


def predict(
    model: Model, files: Sequence[Path], most: int | None = None, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """One record for each file: its name and the prediction; for classes also probabilities, the largest first.

    most: how many probabilities; None: that of each class.
    """
    task, plan, ask = model
    pictures = FilePictures(files)
    pictures.kinds()  # what can't be read shows before anything is computed
    records: list[dict[str, Any]] = []
    with progress.bar("predictions", len(files)) as bar:
        bar.images = 1
        for rows in np.array_split(np.arange(len(files)), max(1, -(-len(files) // MOST))):
            given = ask(pictures.read(rows, plan, lambda count: None))
            for row, label in zip(rows, task.predict(given).tolist(), strict=True):
                records.append({"file_name": str(files[row]), "prediction": _label(task, label)})
            for record, named in zip(records[-len(rows) :], _probabilities(task, given, most), strict=False):
                record["probabilities"] = named
            bar.to(int(rows[-1]) + 1)
    return records


def _probabilities(task: Task, outputs: Tensor, most: int | None) -> list[dict[str, float]]:
    """Of each image the ``most`` largest by class name; empty for a task whose answers have no names."""
    if not task.answer_names:
        return []
    shares, order = (part[:, :most].tolist() for part in task.answer(outputs).sort(descending=True, stable=True))
    return [
        {task.answer_names[number]: round(share, 6) for number, share in zip(numbers, row, strict=True)}
        for numbers, row in zip(order, shares, strict=True)
    ]


def _label(task: Task, label: float) -> str | float:
    return task.answer_names[int(label)] if task.answer_names else float(task.label_text(label))


def as_text(records: Sequence[dict[str, Any]], kind: str, unit: str) -> str:
    """The records as CSV or JSON. In CSV a name that is no UTF-8 has escapes, as on the terminal."""
    if kind == "json":
        return json.dumps([{**record, "unit": unit} if unit else record for record in records], indent=1) + "\n"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    classes = "probabilities" in records[0]
    name = "prediction" if classes or not unit else f"prediction, {unit}"
    writer.writerow(["file_name", name, *(["probability"] if classes else [])])
    for record in records:
        best = [next(iter(record["probabilities"].values()))] if classes else []
        writer.writerow([record["file_name"], record["prediction"], *best])
    return stream.getvalue().encode(errors="backslashreplace").decode()
