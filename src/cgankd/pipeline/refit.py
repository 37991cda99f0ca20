"""``student.refit``: the chosen student is trained once more, with the validation images among the labelled ones.

Where labels are few, the images that choose a row are up to a third of them. Once the choice is made, they teach more
than they measure. So do the searches of scikit-learn, whose word this is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cgankd.config.recipe import Recipe
from cgankd.core import run_text
from cgankd.core.errors import UserError
from cgankd.core.store import Artifact
from cgankd.metrics.statistics import standard_error

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


@dataclasses.dataclass(frozen=True)
class Refit:
    """The student of a row and seed, trained on all labels: its last weights. ships: in place of the chosen one."""

    row: str
    seed: int
    student: Artifact
    ships: bool


def check_predictions(recipe: Recipe) -> None:
    """UserError where the teacher is a file of predictions, which holds none for views of validation images."""
    if recipe.student.refit:
        raise UserError(
            "student.refit = true asks the teacher about views of the validation images, but teacher.source "
            f"{recipe.teacher.source} holds predictions for the exported images alone; allowed: false"
        )


def refit(run: Run, name: str, seed: int, chosen: Mapping[str, Any]) -> Refit:
    """Train the student of row ``name`` on all labels. chosen: the scores of the student that validation has chosen.

    It ships unless something went wrong: it has learnt the validation images, so there it may be worse than the chosen
    student by chance alone, which two standard errors cover. The test split decides nothing.
    """
    student = on_all_labels(run).student(name, seed)
    if not student.summary:  # the run is only planned
        return Refit(name, seed, student, ships=True)
    ships = holds(run.task.metric, float(chosen["val"]), float(student.summary["val"]), len(run.splits.val))
    run.store.progress.say(_spoken(run, name, student.summary["test"], float(chosen["test"]), ships))
    return Refit(name, seed, student, ships)


def holds(metric: str, before: float, after: float, images: int) -> bool:
    """Whether a student's score on the validation images is no worse than before, but for chance."""
    loss = before - after if metric == "accuracy" else after - before
    return loss <= 2.0 * standard_error(metric, before, images)


def on_all_labels(run: Run) -> Run:
    """The run, with the validation images among the labelled ones. Its scores on the validation split are of images
    that networks have learnt.

    A teacher that learns from the labelled images learns from these too. Generated images stay those of ``run``,
    because density ratio and filter were checked on the validation images.
    """
    every = copy.copy(run)
    every.splits, every.before = run.splits.with_validation(), run
    every.store = run.store.remarking(", all labels")
    return every


def _spoken(run: Run, name: str, test: float, before: float, ships: bool) -> str:
    def scored(value: float) -> str:
        return f"{run_text.rounded(value)} {run.task.metric_unit}".rstrip()

    images = len(run.splits.train) + len(run.splits.val)
    measured = run_text.metric_name(run.task.metric)
    end = "it ships" if ships else "it does not ship, because it is worse on the validation images, which it has learnt"
    return (
        f"{name} trained again on all {images:,} labelled images: test {measured} {scored(test)} (before "
        f"{scored(before)}); {end}"
    )
