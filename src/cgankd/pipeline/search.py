"""rho, the label law and M, chosen on the validation split: the grid of the paper's v1, setting by setting.

A ``trial`` is what a student reaches on the validation split with given synthesis settings. A trial
is an artifact of the run, so a search that was stopped goes on, and a wider grid asks only for what is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cgankd.config.settings import SearchSettings, SynthesisSettings
from cgankd.data.imageset import TrainingImages
from cgankd.nets.build import Architecture
from cgankd.pipeline import stages
from cgankd.synthesis.store import StoredFakes
from cgankd.tasks import Task

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

Trial = Callable[[SynthesisSettings | None], float]  # None: the control, without generated images


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a search found."""

    settings: SynthesisSettings
    control: float  # the validation score without generated images
    score: float  # with the chosen ones
    helps: bool  # whether the chosen ones are better than none
    trials: tuple[dict[str, Any], ...]  # setting, value, score, in the order they were made

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
    """Go along one setting at a time (rho, then the label law, then M), keeping the best so far.

    The values of a setting are tried in their order, and given up after ``settings.patience`` in a row that don't
    improve on its best. A setting without values, and the label law where labels are classes, stays as in ``base``.
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
        start, best_here, idle = best, None, 0
        for value in grid[name]:
            candidate = _changed(start, name, value)
            reached = score if candidate == start else trial(candidate)
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
    """As results.json has it: a number, or the kind of a label law."""
    if name == "rho":
        return settings.filter.rho if settings.filter else None
    return settings.labels.kind if name == "labels" else getattr(settings, name)


def choose(road: Run, seed: int) -> Choice | None:
    """rho, label law and M by the validation split; None where the recipe doesn't ask for it."""
    settings, student = road.recipe.search, road.recipe.student
    if settings is None:
        return None
    fit, start = road.transfer(seed, {"steps": settings.steps or student.transfer_steps})

    def trial(synthesis: SynthesisSettings | None) -> float:
        images = TrainingImages(road.splits.train)
        if synthesis is not None:
            fakes = StoredFakes(road.images(seed, synthesis), road.replace)
            images = TrainingImages(road.splits.train, fakes, student.real_share)
        artifact = road.store.titled(f"search (seed {seed})").call(
            stages.train_trial,
            network=Architecture(student.network),
            start=start,
            images=images,
            fit=fit,
            val=road.splits.val,
            task=road.task,
            normalised_by=road.splits.train,
            seed=seed,
        )
        return float(artifact.summary["val"])

    return search(settings, road.recipe.synthesis, road.task, trial)
