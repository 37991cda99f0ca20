"""Exporting a student: the file is written, then tried on the test images of the run, beside the student itself."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core import extras
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.files import INT8, STUDENT_FILES, student_stem
from cgankd.core.mapped_rows import Images
from cgankd.core.runtime import OneDevice
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets.inference import outputs
from cgankd.shipping import formats
from cgankd.shipping.deployed import InputKind
from cgankd.shipping.finished import FinishedRun, Student
from cgankd.tasks import Task

CALIBRATION = 500  # training images, at most, that the scales of 8-bit activations are taken over
TOLERANCE = 1e-3  # of the label range, or the spread of logits: two libraries add in other orders, in float32


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written. compared: on how many test images; difference: the largest, in the output's unit."""

    path: Path
    facts: dict[str, Any]
    compared: int = 0
    difference: float | None = None
    score: float | None = None  # the file's own, on the test images
    int8: Exported | None = None
    note: str = ""  # why it is no ONNX file, or was not compared on the test images


def export(
    folder: Path,
    *,
    row: str | None = None,
    seed: int | None = None,
    to: str = "onnx",
    kind: InputKind = "uint8",
    int8: bool = False,
    out: Path | None = None,
) -> Exported:
    """Write the student of a finished run to a file that needs no cgankd, and check it on the run's test images; where
    these can't be had, on the few images that the run keeps.

    row, seed: of the student; None: the one that ships. out: the file; None: student.SUFFIX in the folder, and
    student-ROW-seedN.SUFFIX for a student that does not ship. int8: a second file beside it. Raises
    UserError for what the user can mend, TrainingError where the file answers otherwise than the student.
    """
    if to not in STUDENT_FILES:
        raise UserError(f"--to {to}: allowed are {', '.join(STUDENT_FILES)}")
    if int8 and to != "onnx":
        raise UserError(f"--int8 makes an ONNX file, not {to}; needed with it: --to onnx")
    run = FinishedRun.open(folder)
    student = run.student(OneDevice(), row, seed)
    path = out or folder / f"{stem(run, student, seed)}{STUDENT_FILES[to]}"
    if path.suffix != STUDENT_FILES[to]:
        raise UserError(f"--out {path}: a file of {to} ends in {STUDENT_FILES[to]}")
    exported = Exported(path, dict(student.facts))
    if to == "safetensors":
        formats.WRITERS[to](student, path, kind)
        return exported
    splits, note = run.images(run.recipe())
    if splits is not None and splits.test.content_key != run.results.get("test_images", splits.test.content_key):
        splits, note = None, "the data set has changed since the run, so its test images are others"
    if int8 and splits is None:
        raise UserError(f"--int8 needs training and test images of the run, but {note}")
    formats.WRITERS[to](student, path, kind)
    images = run.examples() if splits is None else splits.test.images
    answers = _answers(path, images, kind)
    difference = _difference(path, student, images, answers)
    exported = dataclasses.replace(exported, compared=len(answers), difference=difference, note=note)
    if splits is None:
        return exported
    exported = dataclasses.replace(exported, score=_score(student.task, answers, splits.test))
    if not int8:
        return exported
    small = path.with_name(f"{path.stem}{INT8}{path.suffix}")
    formats.write_int8(student, path, small, splits.train.few(CALIBRATION).images)
    score = _score(student.task, formats.OnnxStudent(small)(splits.test.images), splits.test)
    return dataclasses.replace(exported, int8=Exported(small, exported.facts, len(splits.test), None, score))


def stem(run: FinishedRun, student: Student, seed: int | None) -> str:
    """The file's name: ``student`` is the name of the one that ships, and of no other."""
    if student.facts == run.student(OneDevice()).facts:
        return "student"
    return student_stem(student.facts["row"], seed)


def export_after_run(folder: Path) -> Exported:
    """The best student of a run that has just finished, as ONNX; its weights where that can't be had.

    It is compared on the few images that the run keeps for its report, so that the data set is not read again.
    """
    run = FinishedRun.open(folder)
    student = run.student(OneDevice())
    exported = Exported(folder / "student.onnx", dict(student.facts))
    try:
        for package in ("onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise extras.missing("an ONNX file", package, "export")
        formats.write_onnx(student, exported.path, "uint8")
        images = run.examples()
        answers = _answers(exported.path, images, "uint8")
        difference = _difference(exported.path, student, images, answers)
        return dataclasses.replace(exported, compared=len(images), difference=difference)
    except (UserError, TrainingError) as error:  # the run itself has succeeded
        path = folder / "student.safetensors"
        formats.write_safetensors(student, path, "uint8")
        return dataclasses.replace(exported, path=path, note=str(error))


def _answers(path: Path, images: Images, kind: InputKind) -> Tensor:
    """What the written file gives for uint8 images."""
    if path.suffix == STUDENT_FILES["onnx"]:
        return formats.OnnxStudent(path)(images)
    program = torch.export.load(path).module()

    def ask(block: Tensor) -> Tensor:
        given = block if kind == "float32" else (255.0 * block).round().to(torch.uint8)
        return program(given)  # type: ignore[no-any-return]

    return outputs(Work(OneDevice()), ask, images)


def _difference(path: Path, student: Student, images: Images, answers: Tensor) -> float:
    """The largest from the student itself; where it is too large the file is removed, and TrainingError raised."""
    expected = student.task.deployed(outputs(Work(OneDevice()), student.network, images)).double()
    difference = float(student.task.difference(answers, expected).abs().max())
    scale = student.task.error_scale if student.task.continuous else max(1.0, float(expected.std()))
    if not difference <= TOLERANCE * scale:
        path.unlink()
        raise TrainingError(
            f"{path} was removed: what it gives for {len(images)} images differs from the student by up to "
            f"{difference:.3g}"
        )
    return difference


def _score(task: Task, answers: Tensor, images: ImageSet) -> float:
    return float(task.score(task.from_deployed(answers), images.labels).mean())
