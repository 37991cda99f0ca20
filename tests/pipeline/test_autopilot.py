"""The autopilot: halving candidates on the validation split, and stopping where nothing is left to gain."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.config.settings import JurorSettings, TeacherSettings
from cgankd.config.settings.compare import CANDIDATES
from cgankd.core.errors import UserError
from cgankd.core.files import read_json
from cgankd.core.store import Artifact
from cgankd.pipeline import autopilot, preflight, run
from cgankd.pipeline.autopilot import Score
from cgankd.pipeline.comparisons import CONTROL, row
from cgankd.pipeline.stations import _val_so_far, stations
from cgankd.report.render import render
from cgankd.shipping.generate import generate
from cgankd.tasks import Classification

TINY = {
    "seeds": [0],
    "data": {"source": "digits", "train_size": 60, "val_size": 10},
    "teacher": {"network": "cnn8", "fit": {"steps": 6, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 2, "batch_size": 16}, "transfer_steps": 8, "real_share": 0.5},
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "steps": 3, "batch_size": 16, "ema_start": 1},
    "synthesis": {"images": 20, "filter": None, "subsampling": "none"},
    "metrics": {"generator": False},
    "compare": {"methods": "auto"},
    "runtime": {"threads": 1, "precision": "fp32"},
}
SCORES = {"augment": 60.0, "kd": 70.0, "fm~mixup": 80.0, "fm~randaugment~mixup": 75.0, "cgan_kd": 65.0,
          "cgan+fm~plain": 72.0, "cgan+fm~mixup": 81.0, "cgan+fm~randaugment~mixup": 79.0}  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return recipe.from_tree(json.loads(json.dumps(TINY)), overrides)


class Trials:
    """Scores by row; notes what was asked."""

    def __init__(self, scores: Mapping[str, float], losses: Mapping[str, float] | None = None) -> None:
        self.scores, self.losses, self.asked = scores, losses or {}, list[tuple[str, int]]()

    def __call__(self, names: Sequence[str], steps: int) -> list[Score]:
        self.asked += [(name, steps) for name in names]
        return [Score(self.scores[name], self.losses.get(name)) for name in names]


def test_the_better_half_of_the_candidates_goes_on() -> None:
    trial = Trials(SCORES)
    flight = autopilot.fly(CANDIDATES, 1000, Score(95.0), True, trial)
    assert flight.chosen == "cgan+fm~mixup"
    assert flight.rows == (CONTROL, "cgan+fm~mixup")
    assert Counter(steps for _, steps in trial.asked) == {250: 8, 500: 4, 1000: 3}
    assert trial.asked[-3:] == [("fm~mixup", 1000), ("cgan+fm~mixup", 1000), ("kd", 1000)]
    assert {name for name, steps in trial.asked if steps == 500} == {
        "fm~mixup", "fm~randaugment~mixup", "cgan+fm~mixup", "cgan+fm~randaugment~mixup",
    }  # fmt: skip
    assert [row(name).fakes for name, _ in trial.asked] == [False] * 6 + [True] * 6 + [False, True, False]


def test_plain_kd_is_always_among_the_finalists_once() -> None:
    class Late(Trials):
        """kd is best in the end alone."""

        def __call__(self, names: Sequence[str], steps: int) -> list[Score]:
            found = super().__call__(names, steps)
            late = [(name, steps) == ("kd", 1000) for name in names]
            return [Score(99.0) if best else score for best, score in zip(late, found, strict=True)]

    flight = autopilot.fly(CANDIDATES, 1000, Score(100.0), True, Late(SCORES))
    assert flight.chosen == "kd"  # although its trials were not
    trial = Trials({**SCORES, "kd": 90.0})
    autopilot.fly(CANDIDATES, 1000, Score(95.0), True, trial)
    assert trial.asked[-2:] == [("kd", 1000), ("cgan+fm~mixup", 1000)]
    others = [name for name in CANDIDATES if name != "kd"]
    trial = Trials(SCORES)
    autopilot.fly(others, 1000, Score(95.0), True, trial)
    assert "kd" not in {name for name, _ in trial.asked}


def test_errors_are_better_when_lower() -> None:
    flight = autopilot.fly(
        CANDIDATES, 1000, Score(2.0), False, Trials({name: 100 - score for name, score in SCORES.items()})
    )
    assert flight.chosen == "cgan+fm~mixup"


def test_at_the_teachers_level_no_generated_images_are_tried() -> None:
    trial = Trials(SCORES)
    flight = autopilot.fly(CANDIDATES, 1000, Score(80.0), True, trial)
    assert (flight.chosen, flight.with_fakes) == ("fm~mixup", False)
    assert not any(row(name).fakes for name, _ in trial.asked)
    assert trial.asked[-3:] == [("fm~mixup", 1000), ("fm~randaugment~mixup", 1000), ("kd", 1000)]
    assert "nothing is left to gain" in autopilot.reasons(flight, str)[2]


def test_a_teacher_that_knows_no_more_than_the_labels_stops_nothing() -> None:
    assert autopilot.fly(CANDIDATES, 1000, Score(80.0), True, Trials(SCORES), stops=False).with_fakes
    known = TeacherSettings()
    assert not known.knows_more(pool_has_more=True)
    pool = known.model_copy(update={"trained_on": "pool"})
    assert pool.knows_more(pool_has_more=True)
    assert not pool.knows_more(pool_has_more=False)
    assert known.model_copy(update={"weights": "a.safetensors"}).knows_more(pool_has_more=False)
    jury = {"jury": (JurorSettings(source="m:f"),)}  # students learn from it where it votes
    assert known.model_copy(update={**jury, "votes": "mean"}).knows_more(pool_has_more=False)
    assert not known.model_copy(update=jury).knows_more(pool_has_more=False)


def test_a_pool_without_further_images_is_known_to_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[bool] = []
    monkeypatch.setattr(autopilot, "fly", lambda *given: stops.append(given[-2]))
    this_run: Any = SimpleNamespace(
        recipe=tiny("teacher.trained_on=pool"), upstream=int, task=Classification(("a", "b")),
        teacher=lambda seed: Artifact(Path(), "", 0.0, {"val": None}),
    )  # fmt: skip
    for further in (0, 1):
        this_run.splits = SimpleNamespace(train=range(10), pool=range(10 + further), val=range(5))
        autopilot.choose(this_run)
    assert stops == [False, True]


def test_an_unknown_teacher_stops_nothing() -> None:
    assert autopilot.fly(CANDIDATES, 1000, None, True, Trials(SCORES)).with_fakes


@pytest.mark.parametrize(("higher_is_better", "teacher"), [(True, 95.0), (False, 2.0)])
def test_trials_that_are_not_done_stop_nothing(tmp_path: Path, higher_is_better: bool, teacher: float) -> None:
    task, student = SimpleNamespace(higher_is_better=higher_is_better), SimpleNamespace(ships="last")
    this_run: Any = SimpleNamespace(task=task, recipe=SimpleNamespace(student=student))
    unknown = _val_so_far(this_run, Artifact(tmp_path, "key", 0.0, {}))
    trials = Trials(dict.fromkeys(SCORES, unknown.val))
    assert autopilot.fly(CANDIDATES, 1000, Score(teacher), higher_is_better, trials).with_fakes
    done = Artifact(tmp_path, "key", 0.0, {"val": 3.5, "val_loss": 0.1, "best": {"val": 4.5, "val_loss": 0.2}})
    assert _val_so_far(this_run, done) == Score(3.5, 0.1)
    student.ships = "best"
    assert _val_so_far(this_run, done) == Score(4.5, 0.2)


@pytest.mark.parametrize(("ships", "chosen"), [("last", "kd"), ("best", "augment")])
def test_candidates_are_compared_by_the_weights_that_ship(tmp_path: Path, ships: str, chosen: str) -> None:
    last, best = {"augment": 70.0, "kd": 80.0}, {"augment": 90.0, "kd": 85.0}
    said: list[str] = []

    def trial(name: str, seed: int, steps: int) -> Artifact:
        return Artifact(tmp_path, name, 0.0, {"val": last[name], "best": {"val": best[name]}})

    student, teacher = SimpleNamespace(ships=ships, transfer_steps=8), TeacherSettings()
    settings = SimpleNamespace(rows=tuple(last), seeds=[0], student=student, teacher=teacher)
    this_run: Any = SimpleNamespace(
        recipe=settings, trial=trial, upstream=int, splits=SimpleNamespace(pool=(), train=(), val=()),
        teacher=lambda seed: Artifact(tmp_path, "", 0.0, {"val": None}),
        task=Classification(["a", "b"]), store=SimpleNamespace(progress=SimpleNamespace(say=said.append)),
    )  # fmt: skip
    assert autopilot.choose(this_run).chosen == chosen
    scores = last if ships == "last" else best
    assert said[0] == f"augment after 2 steps: validation accuracy {scores['augment']:g} %"


def test_of_equal_candidates_the_simpler_is_taken() -> None:
    flight = autopilot.fly(CANDIDATES, 1000, Score(95.0), True, Trials(dict.fromkeys(SCORES, 50.0)))
    assert flight.chosen == "augment"
    assert "do not change the score" in autopilot.reasons(flight, str)[2]


def test_of_equal_scores_the_lowest_loss_decides() -> None:
    losses = dict.fromkeys(SCORES, 0.1) | {"fm~randaugment~mixup": 0.06, "cgan_kd": 0.05, "cgan+fm~plain": 0.04}
    flight = autopilot.fly(CANDIDATES, 1000, Score(95.0), True, Trials(dict.fromkeys(SCORES, 50.0), losses))
    assert flight.chosen == "cgan+fm~plain"
    assert flight.trials[-1].row == "cgan+fm~plain"
    assert flight.to_json("%")["trials"][-1]["val_loss"] == 0.04
    better = {**dict.fromkeys(SCORES, 50.0), "kd": 51.0}
    assert autopilot.fly(CANDIDATES, 1000, Score(95.0), True, Trials(better, losses)).chosen == "kd"


def test_of_accuracies_that_chance_explains_the_lowest_loss_decides() -> None:
    losses = dict.fromkeys(SCORES, 0.1) | {"cgan+fm~plain": 0.04}
    scores = {**dict.fromkeys(SCORES, 50.0), "kd": 51.0}
    trials = Trials(scores, losses)
    flight = autopilot.fly(CANDIDATES, 1000, Score(95.0), True, trials, images=100)  # a standard error: 5 points
    assert flight.chosen == "cgan+fm~plain"
    first, _, third = autopilot.reasons(flight, "{:g} %".format)
    assert "(kd 51 %, with a higher loss" in first
    assert third.startswith("Generated images were tried and are better by the loss alone, because the scores differ")
    assert autopilot.fly(CANDIDATES, 1000, Score(95.0), True, trials, images=9000).chosen == "kd"
    errors = Trials({name: 100.0 - score for name, score in scores.items()}, losses)
    assert autopilot.fly(CANDIDATES, 1000, Score(5.0), False, errors, images=100).chosen == "kd"


@pytest.mark.parametrize(("loss", "further"), [(0.1, True), (0.2, False), (None, False)])
def test_a_student_is_at_the_teachers_level_by_score_and_by_loss(loss: float | None, further: bool) -> None:
    trials = Trials({**SCORES, "kd": 100.0}, dict.fromkeys(SCORES, 0.2))
    assert autopilot.fly(CANDIDATES, 1000, Score(100.0, loss), True, trials).with_fakes is further


def test_the_reasons_name_the_scores_of_the_last_round() -> None:
    reasons = autopilot.reasons(autopilot.fly(CANDIDATES, 1000, Score(95.0), True, Trials(SCORES)), "{:g} %".format)
    assert reasons == [
        "Of 8 candidates, validation chose row cgan+fm~mixup: 81 % there after 1,000 steps (fm~mixup 80 %, kd 70 %).",
        "The teacher's score there is 95 %.",
        "Generated images were tried and are better than the candidates without, by validation and with one seed.",
    ]


def test_the_reasons_say_what_decided_between_equal_scores() -> None:
    scores = {**dict.fromkeys(SCORES, 50.0), "kd": 80.0, "cgan_kd": 80.0}
    losses = {**dict.fromkeys(SCORES, 1.0), "cgan_kd": 0.5}
    first, _, third = autopilot.reasons(autopilot.fly(CANDIDATES, 1000, None, True, Trials(scores, losses)), str)
    assert first.endswith(
        "validation chose row cgan_kd: 80.0 there after 1,000 steps (kd 80.0 too, with a higher loss)."
    )
    assert third == "Generated images were tried and do not change the score here, by validation and with one seed."
    first, _, _ = autopilot.reasons(autopilot.fly(CANDIDATES, 1000, None, True, Trials(scores)), str)
    assert first.endswith("validation chose row kd: 80.0 there after 1,000 steps (cgan_kd 80.0 too).")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, float]], None]:
    """Lets trials really train, but gives them these scores."""

    def use(scores: Mapping[str, float]) -> None:
        real = run.Run.trial

        def trial(this: run.Run, name: str, seed: int, steps: int) -> Any:
            artifact = real(this, name, seed, steps)
            return dataclasses.replace(
                artifact, summary={**artifact.summary, "val": scores.get(name, 0.0), "val_loss": 0.0}
            )

        monkeypatch.setattr(run.Run, "trial", trial)

    return use


def test_a_run_trains_in_full_only_the_chosen_row_and_the_control(
    tmp_path: Path, scored: Callable[[Mapping[str, float]], None]
) -> None:
    below = {name: score - 100 for name, score in SCORES.items()}  # below any teacher's
    scored({**below, "cgan_kd": -1.0})
    results = run.run(tiny(), tmp_path)
    assert [entry["method"] for entry in results["rows"]] == [CONTROL, "cgan_kd"]
    assert results["autopilot"]["chosen"] == "cgan_kd"
    made = [read_json(path) for path in tmp_path.glob("artifacts/train_*/artifact.json")]
    students = [entry for entry in made if entry["stage"] == "train_student"]
    steps = sorted(entry["arguments"]["fit"]["steps"] for entry in students)
    assert steps == [2] * 8 + [4] * 4 + [8] * 4  # the control, the two finalists and kd in full
    assert not any("test" in entry["summary"] for entry in students)
    assert len(list(tmp_path.glob("artifacts/score_student-*"))) == 2
    page = render(tmp_path).read_text(encoding="utf-8")
    assert 'id="autopilot"' in page
    assert "Of 8 candidates, validation chose row cgan_kd" in page
    assert "This run has no ablation" not in page  # because the autopilot allows none


def test_a_run_at_the_teachers_level_trains_no_generator(
    tmp_path: Path, scored: Callable[[Mapping[str, float]], None]
) -> None:
    scored({**SCORES, "kd": 100.0})
    results = run.run(tiny("teacher.trained_on=pool"), tmp_path)
    assert [entry["method"] for entry in results["rows"]] == [CONTROL, "kd"]
    assert not list(tmp_path.glob("artifacts/train_generator-*"))
    render(tmp_path)


@pytest.mark.long
def test_the_generator_of_a_run_that_ships_a_row_without_its_images_can_be_asked(
    tmp_path: Path, scored: Callable[[Mapping[str, float]], None]
) -> None:
    scored({"kd": -1.0, **dict.fromkeys(set(SCORES) - {"kd"}, -2.0)})
    results = run.run(tiny("student.fit.steps=1", "student.transfer_steps=4"), tmp_path)
    assert [entry["method"] for entry in results["rows"]] == [CONTROL, "kd"]
    assert generate(tmp_path, "3", 2).shape == (2, 1, 16, 16)
    page = render(tmp_path).read_text(encoding="utf-8")
    assert 'id="generator"' in page
    assert 'id="subsampling"' not in page


def test_the_stations_of_a_run_that_has_not_begun_hold_all_trials(tmp_path: Path) -> None:
    with run.opened(tiny(), tmp_path) as road:
        kinds = Counter(station.kind for station in stations(road))
    assert (kinds["train_student"], kinds["score_student"]) == (16, 2)


def test_auto_with_ablation_is_refused() -> None:
    with pytest.raises(UserError, match="ablation adds rows to a list, but methods is auto"):
        tiny("compare.ablation=true")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fm~mixxup",
            r"'mixxup' after ~ is not known \(did you mean 'mixup'\?\); allowed: METHOD~plain, or one or more",
        ),
        ("fm~mixup~mixup", "a view is named twice"),
        ("fm~plain~mixup", "plain is named beside other views"),
        ("augment~mixup", r"its views are those of student\.strong_augment"),
        ("nokd~mixup", r"its views are those of student\.fit\.augment"),
    ],
)
def test_views_that_a_row_cannot_have_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preflight.resolve(tiny(f"compare.methods=[{name}]"))
