"""The search for rho, label law and M: which values are tried, which are kept, and on which split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_run_road import stages, tiny

from cgankd.config.settings import (
    DistinctLabels,
    EmpiricalLabels,
    EvenLabels,
    FilterSettings,
    SearchSettings,
    SynthesisSettings,
)
from cgankd.pipeline import run
from cgankd.pipeline.search import search
from cgankd.tasks import Classification, Regression, Task

CLASSES = Classification(("cat", "dog"))
DEGREES = Regression(0.0, 90.0, "degrees")


def table(scores: dict[str, dict[object, float]], control: float) -> Callable[[SynthesisSettings | None], float]:
    """A trial whose score is the sum of what each setting's value brings."""

    def trial(settings: SynthesisSettings | None) -> float:
        if settings is None:
            return control
        values = {"rho": settings.filter and settings.filter.rho, "labels": settings.labels, "images": settings.images}
        return sum(worth.get(values[name], 0.0) for name, worth in scores.items())

    return trial


@pytest.mark.parametrize(("task", "sign"), [(CLASSES, 1.0), (DEGREES, -1.0)])
def test_the_best_value_of_each_setting_is_kept(task: Task, sign: float) -> None:
    scores = {
        "rho": {0.5: sign * 1, 0.6: sign * 4, 0.7: sign * 2, 0.9: sign * 3},
        "images": {100: sign * 1, 200: sign * 5, 300: sign * 9},
    }
    settings = SearchSettings(rho=(0.5, 0.6, 0.7, 0.9), images=(100, 200, 300), patience=4)
    base = SynthesisSettings(images=200, filter=FilterSettings(by="all", calibration=20), max_draws=3)
    choice = search(settings, base, task, table(scores, sign * 10))
    assert choice.settings.filter == FilterSettings(rho=0.6, by="all", calibration=20)
    assert choice.settings.max_draws == 3
    assert choice.settings.images == 300
    assert choice.score == sign * 13
    assert choice.helps
    assert json.loads(json.dumps(choice.to_json()))["chosen"] == {
        "rho": 0.6, "labels": "even", "images": 300,
    }  # fmt: skip


def test_the_value_of_the_start_keeps_its_score_where_another_was_better() -> None:
    start = SynthesisSettings(filter=FilterSettings(rho=0.9))
    choice = search(SearchSettings(rho=(0.8, 0.9)), start, CLASSES, table({"rho": {0.8: 60.0, 0.9: 50.0}}, 40.0))
    assert [(trial["value"], trial["score"]) for trial in choice.trials] == [(None, 50.0), (0.8, 60.0), (0.9, 50.0)]


def test_values_that_do_not_improve_end_a_setting_s_search() -> None:
    asked: list[float | None] = []

    def trial(settings: SynthesisSettings | None) -> float:
        asked.append(None if settings is None else settings.filter.rho)
        return 0.0 if settings is None else -abs((settings.filter.rho or 0) - 0.5)

    quantiles = (0.4, 0.5, 0.6, 0.7, 0.8)
    choice = search(SearchSettings(rho=quantiles, patience=2), SynthesisSettings(), CLASSES, trial)
    assert asked == [0.9, 0.4, 0.5, 0.6, 0.7, None]  # the start, the grid until two don't improve, the control
    assert choice.settings.filter.rho == 0.5


def test_label_laws_are_for_scalars_and_are_tried_with_the_best_quantile() -> None:
    settings = SearchSettings(rho=(0.7,), labels=("distinct", {"kind": "even", "count": 9}, "empirical"))
    laws = {EvenLabels(): 4.0, DistinctLabels(): 3.0, EvenLabels(count=9): 2.0, EmpiricalLabels(): 1.0}
    choice = search(settings, SynthesisSettings(), DEGREES, table({"labels": laws}, 9.0))
    assert choice.settings.labels == EmpiricalLabels()
    assert [trial["value"] for trial in choice.trials] == [None, 0.7, "distinct", "even", "empirical"]
    choice = search(settings, SynthesisSettings(), CLASSES, table({"labels": laws}, 9.0))
    assert {trial["setting"] for trial in choice.trials} == {"start", "rho"}


def test_without_a_filter_there_is_no_quantile_to_search() -> None:
    choice = search(SearchSettings(), SynthesisSettings(filter=None), DEGREES, lambda settings: 1.0)
    assert [trial["setting"] for trial in choice.trials] == ["start"]
    assert not choice.helps  # as good as without fakes is no help


@pytest.mark.long
def test_a_run_searches_on_the_validation_split_and_uses_what_it_found(tmp_path: Path) -> None:
    extra = ("search.rho=[0.5, 0.8]", "search.images=[20, 40]", "seeds=[0]")
    found = run.run(tiny(*extra), tmp_path)
    trials = found["search"]["trials"]
    files = tmp_path.glob("artifacts/train_student-*/artifact.json")
    scores = {json.loads(file.read_text())["summary"]["val"] for file in files}
    assert {trial["score"] for trial in trials} | {found["search"]["control"]} <= scores
    assert found["synthesis"]["filter_quantile"] == found["search"]["chosen"]["rho"]
    assert found["synthesis"]["requested"] == found["search"]["chosen"]["images"]
    assert found["search"]["score"] == max(trial["score"] for trial in trials)
    said = [warning for warning in found["warnings"] if "generated images do not help here" in warning]
    assert bool(said) == (not found["search"]["helps"])
    before = stages(tmp_path)
    assert run.run(tiny(*extra), tmp_path)["search"] == found["search"]  # every trial is found again
    assert stages(tmp_path) == before
