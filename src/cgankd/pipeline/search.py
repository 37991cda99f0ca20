"""rho, the label law and M, chosen on the validation split: the grid of the paper's v1, setting by setting.

The road supplies ``trial``: what a student reaches on the validation split with given synthesis settings. A trial
is an artifact of the run, so a search that was stopped goes on, and a wider grid asks only for what is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from cgankd.config.settings import SearchSettings, SynthesisSettings
from cgankd.tasks import Task

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
            "chosen": {name: getattr(self.settings, name) for name in SETTINGS},
            "control": self.control,
            "score": self.score,
            "helps": self.helps,
            "trials": list(self.trials),
        }


SETTINGS = ("filter_quantile", "labels", "images")


def search(settings: SearchSettings, base: SynthesisSettings, task: Task, trial: Trial) -> Choice:
    """Go along one setting at a time (rho, then the label law, then M), keeping the best so far.

    A setting's values are tried in their order, and given up after ``settings.patience`` in a row that don't
    improve on its best; without values, and the label law where labels are classes, it stays as in ``base``.
    """
    rho = task.filter_quantile if base.filter_quantile is None else base.filter_quantile
    best = base.model_copy(update={"filter_quantile": rho})
    score, trials = trial(best), []
    better = 1.0 if task.higher_is_better else -1.0
    grid: dict[str, Sequence[Any]] = {
        "filter_quantile": settings.quantiles if base.filter else (),
        "labels": settings.labels if task.continuous else (),
        "images": settings.images,
    }
    trials.append({"setting": "start", "value": None, "score": score})
    for name in SETTINGS:
        start, best_here, idle = best, None, 0
        for value in grid[name]:
            candidate = start.model_copy(update={name: value})
            reached = score if candidate == start else trial(candidate)
            trials.append({"setting": name, "value": value, "score": reached})
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
