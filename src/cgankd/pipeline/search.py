"""The search: chooses rho, the label law and M on the validation split, one setting after another (paper, v1).

A trial trains a student with given synthesis settings and scores it on the validation split. Each trial is an artifact
of the run, so a search can be resumed, and a larger grid only adds new trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cgankd.config.settings import SearchSettings, SynthesisSettings
from cgankd.core.store import Artifact
from cgankd.data.imageset import TrainingImages
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.nets.build import Architecture
from cgankd.pipeline import stages
from cgankd.pipeline.inputs import Student
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks import Task

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

Trial = Callable[[SynthesisSettings | None], float]  # the validation score; None: without generated images


@dataclasses.dataclass(frozen=True)
class Choice:
    """The result of a search."""

    settings: SynthesisSettings
    control: float  # the validation score without generated images
    score: float  # the validation score with the chosen settings
    helps: bool  # whether ``score`` is better than ``control``
    trials: tuple[dict[str, Any], ...]  # setting, value and score, in order

    def to_json(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "chosen": {name: _value(self.settings, name) for name in SETTINGS},
            "control": self.control,
            "score": self.score,
            "helps": self.helps,
            "trials": list(self.trials),
        }


SETTINGS = ("rho", "labels", "images")


def search(settings: SearchSettings, base: SynthesisSettings, task: Task, trial: Trial) -> Choice:
    """Search one setting after another (rho, then the label law, then M), and keep the best settings so far.

    The values of a setting are tried in order, until ``settings.patience`` values in a row are no better than the best
    of this setting. A setting without values, and the label law for class labels, stays as in ``base``.
    """
    best = base if base.filter is None else _changed(base, "rho", base.filter.rho or task.filter_quantile)
    score, trials = trial(best), []
    better = 1.0 if task.higher_is_better else -1.0
    grid: dict[str, Sequence[Any]] = {
        "rho": settings.rho if base.filter else (),
        "labels": settings.labels if task.continuous else (),
        "images": settings.images,
    }
    trials.append({"setting": "start", "value": None, "score": score})
    for name in SETTINGS:
        start, start_score, best_here, idle = best, score, None, 0
        for value in grid[name]:
            candidate = _changed(start, name, value)
            reached = start_score if candidate == start else trial(candidate)
            trials.append({"setting": name, "value": _value(candidate, name), "score": reached})
            if best_here is None or better * (reached - best_here) > 0:
                best_here, idle = reached, 0
            else:
                idle += 1
            if better * (reached - score) > 0:
                best, score = candidate, reached
            if idle >= settings.patience:
                break
    control = trial(None)
    return Choice(best, control, score, better * (score - control) > 0, tuple(trials))


def _changed(settings: SynthesisSettings, name: str, value: Any) -> SynthesisSettings:
    if name == "rho":
        assert settings.filter is not None
        name, value = "filter", settings.filter.model_copy(update={"rho": value})
    return settings.model_copy(update={name: value})


def _value(settings: SynthesisSettings, name: str) -> Any:
    """The value for results.json: a number, or the kind of a label law."""
    if name == "rho":
        return settings.filter.rho if settings.filter else None
    return settings.labels.kind if name == "labels" else getattr(settings, name)


def validation_score(trial: Artifact) -> float:
    return float(trial.summary["val"])


def choose(run: Run, seed: int, score: Callable[[Artifact], float] = validation_score) -> Choice | None:
    """The search of a run; None where the recipe has none."""
    settings, student = run.recipe.search, run.recipe.student
    if settings is None:
        return None
    fit, start = run.transfer(seed, {"steps": settings.steps or student.transfer_steps})

    def trial(synthesis: SynthesisSettings | None) -> float:
        images = TrainingImages(run.splits.train)
        if synthesis is not None:
            fakes = StoredFakes(run.images(seed, synthesis), run.replace)
            images = TrainingImages(run.splits.train, fakes, student.real_share)
        artifact = run.store.titled(f"search (seed {seed})").call(
            stages.train_student,
            student=Student(Architecture(student.network), MethodStack(SUPERVISED), start),
            teachers=None,
            images=images,
            fit=fit,
            val=run.splits.val,
            task=run.task,
            seed=seed,
        )
        return score(artifact)

    return search(settings, run.recipe.synthesis, run.task, trial)
