"""What a reader should know of a run's rows, starts and teachers, beside what is said of the data and in warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cgankd.config.settings import FromWeights
from cgankd.core.store import Artifact
from cgankd.pipeline.comparisons import row
from cgankd.teachers.answers import StoredAnswers

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


def run_notes(run: Run, students: Mapping[str, Sequence[Artifact]], teacher: Artifact) -> list[str]:
    """All of them."""
    return [*row_notes(run), *start_notes(run, students), *teacher_notes(run, teacher.summary)]


def row_notes(run: Run) -> list[str]:
    """Notes on settings of a row that the task does not allow."""
    strong, task = run.recipe.student.strong_augment, run.task
    notes = []
    for name in (name for name in run.rows if row(name).strong):
        if strong.mixes and not task.mixable:
            notes.append(f"row {name} mixes no images, because a mix of two has no label in {task.name}")
        if strong.randaugment and not task.geometry_safe:
            notes.append(
                f"row {name} changes pixel values only, because rotating or shearing an image may change its label"
            )
    return notes


def start_notes(run: Run, students: Mapping[str, Sequence[Artifact]]) -> list[str]:
    """A note on the weights of another task that the students started from."""
    start = run.recipe.student.start
    if not isinstance(start, FromWeights):
        return []
    anew = list(dict.fromkeys(layer for seeds in students.values() for layer in seeds[0].summary["started_anew"]))
    layers = ", ".join(anew) or "no layer"
    return [f"the students' trainings started from {start.file}; from random weights: {layers}"]


def teacher_notes(run: Run, teacher: Mapping[str, Any]) -> list[str]:
    """Notes on the initial weights of teachers, and on what is not known of a black box."""
    jury = enumerate(run.recipe.teacher.jury, start=1)
    notes = [
        f"juror {number} is {juror.source or juror.start}" for number, juror in jury if juror.source or juror.start
    ]
    if (votes := run.recipe.teacher.votes) != "first":
        kind = {"mean": "mean vote", "confidence": "vote, weighted by confidence,"}[votes]
        notes.append(f"the teacher's scores are those of the {kind} of {len(run.recipe.teacher.all())} teachers")
    if "started_anew" in teacher:
        anew = ", ".join(teacher["started_anew"]) or "no layer"
        notes.append(f"the teacher's training started from {run.recipe.teacher.start}; from random weights: {anew}")
    return [*notes, *_notes_on_black_box(run)] if teacher.get("only_answers") else notes


def _notes_on_black_box(run: Run) -> Iterator[str]:
    recipe = run.recipe
    quality = recipe.metrics.generator
    features = "none" if quality is None else f"[{', '.join(quality.features)}]"
    yield (
        "the teacher is a black box, so its size and speed are not known, and features come from other networks: "
        f"ratio.features={recipe.ratio.features.kind}, metrics.generator.features={features}"
    )
    if isinstance(predictions := run.black_box, StoredAnswers):
        yield from _notes_on_predictions(run, predictions)
    if recipe.metrics.robustness is not None:
        yield "the teacher was not attacked, because a black box gives no gradients"


def _notes_on_predictions(run: Run, predictions: StoredAnswers) -> Iterator[str]:
    for split, name in (("val", "validation"), ("test", "test")):
        images = getattr(run.splits, split).images
        if missing := predictions.unanswered(images):
            yield (
                f"the teacher has predictions for {len(images) - missing} of {len(images)} {name} images, so it has "
                "no score there"
            )
    if {"cgan_raw", "cgan_subsample"} & set(run.rows):
        yield "cgan_raw is the same as cgan_subsample, because images can be subsampled only before their export"
