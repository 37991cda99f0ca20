"""student.refit: the chosen student trained again with the validation images, and which of the two ships."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from test_run_road import stages, tiny

from cgankd.core.files import load_tensors
from cgankd.core.store import Work
from cgankd.data import sources
from cgankd.experiments.cells import grid
from cgankd.pipeline import refit, run
from cgankd.pipeline.stages import networks
from cgankd.pipeline.stations import stations
from cgankd.shipping.export import stem
from cgankd.shipping.finished import FinishedRun
from cgankd.training import scoring

FEW = ("seeds=[0]", "compare.methods=[cgan_kd]", "metrics.generator=false", "student.refit=true")


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Each training that is done: its stage, and the number of real and of generated images."""
    seen: list[tuple[str, int, int]] = []
    train = networks.train

    def watched(work: Work, network: Any, objective: Any, images: Any, *more: Any, **named: Any) -> Any:
        fakes = 0 if images.fake is None else len(images.fake.open())
        seen.append((work.title, len(images.real.open()), fakes))
        return train(work, network, objective, images, *more, **named)

    monkeypatch.setattr(networks, "train", watched)
    return seen


def test_the_chosen_student_and_its_teacher_learn_all_labels_and_the_same_fakes(
    tmp_path: Path, fabric: Fabric, trained_on: list[tuple[str, int, int]]
) -> None:
    recipe = tiny(*FEW)
    results = run.run(recipe, tmp_path)
    fakes = results["rows"][0]["fake_images"]
    assert trained_on == [
        ("teacher (seed 0)", 60, 0),
        ("cgan_kd (seed 0)", 60, fakes),
        ("teacher (seed 0), all labels", 70, 0),
        ("cgan_kd (seed 0), all labels", 70, fakes),
    ]
    made = stages(tmp_path)
    assert made["train_generator"] == made["make_images"] == made["train_density_ratio"] == 1
    again = results["refit"]
    assert (again["method"], again["seed"], again["real_images"]) == ("cgan_kd", 0, 70)
    assert again["ships"]
    splits = sources.load(recipe.data)
    student = FinishedRun.open(tmp_path).student(fabric)
    assert scoring.metric(Work(fabric), student.network, splits.test, splits.task) == pytest.approx(again["mean"])
    assert results["best"]["test"] == student.facts["test"] == again["mean"]
    assert student.facts["labelled"] == 70
    answers = load_tensors(tmp_path / results["artifacts"]["worst"] / "answers.safetensors")[0]
    right = (answers["cgan_kd_predictions"] == answers["labels"]).double().mean().item()
    assert 100.0 * right == pytest.approx(again["mean"])  # the page shows the student that ships


def test_a_second_start_trains_nothing_and_without_refit_the_chosen_student_ships(
    tmp_path: Path, fabric: Fabric, trained_on: list[tuple[str, int, int]]
) -> None:
    words = ("seeds=[0]", "compare.methods=[kd]", "teacher.trained_on=pool")
    run.run(tiny(*words, "student.refit=true"), tmp_path)
    assert [entry[1] for entry in trained_on] == [1338, 60, 70]  # the pool's teacher has learnt no validation image
    again = FinishedRun.open(tmp_path).student(fabric)
    (tmp_path / "student.onnx").touch()
    run.run(tiny(*words, "student.refit=true"), tmp_path)
    assert (tmp_path / "student.onnx").exists()
    results = run.run(tiny(*words), tmp_path)
    assert len(trained_on) == 3
    assert "refit" not in results
    assert not (tmp_path / "student.onnx").exists()  # it held the other student
    chosen = FinishedRun.open(tmp_path).student(fabric)
    assert "labelled" not in chosen.facts
    assert any(
        not torch.equal(a, b) for a, b in zip(again.network.parameters(), chosen.network.parameters(), strict=True)
    )


def test_the_chosen_student_keeps_a_file_name_of_its_own(tmp_path: Path, fabric: Fabric) -> None:
    run.run(tiny(*FEW[:1], "compare.methods=[kd]", "student.refit=true"), tmp_path)
    finished = FinishedRun.open(tmp_path)
    assert stem(finished, finished.student(fabric), None) == "student"
    assert stem(finished, finished.student(fabric, "kd"), None) == "student-kd"
    assert stem(finished, finished.student(fabric, "kd", 0), 0) == "student-kd-seed0"


def test_a_student_that_got_worse_on_what_it_has_learnt_does_not_ship(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("seeds=[0]", "compare.methods=[kd]", "student.refit=true")
    monkeypatch.setattr(refit, "standard_error", lambda metric, score, images: -1000.0)
    results = run.run(tiny(*words), tmp_path)
    (row,) = results["rows"]
    assert not results["refit"]["ships"]
    assert results["best"]["test"] == row["mean"]
    assert "labelled" not in FinishedRun.open(tmp_path).student(fabric).facts


@pytest.mark.parametrize(
    ("metric", "before", "images", "after", "ships"),
    [
        ("accuracy", 90.0, 100, 84.0, True),  # a standard error is 3.1 points
        ("accuracy", 90.0, 100, 83.0, False),
        ("mae", 4.0, 100, 4.5, True),  # a standard error is .3
        ("mae", 4.0, 100, 4.7, False),
    ],
)
def test_chance_alone_stops_no_student(metric: str, before: float, images: int, after: float, ships: bool) -> None:
    assert refit.holds(metric, before, after, images) is ships


def test_the_student_that_ships_is_attacked_too(tmp_path: Path) -> None:
    attack = ("metrics.robustness.images=8", "metrics.robustness.steps=1")
    recipe = tiny(*FEW[:1], "compare.methods=[kd]", "metrics.generator=false", "student.refit=true", *attack)
    with run.opened(recipe, tmp_path) as road:
        planned = Counter(station.kind for station in stations(road))
    again = run.run(recipe, tmp_path)["refit"]["robustness"]
    assert 0 <= again["pgd"]["mean"] <= again["clean"]["mean"] <= 100
    assert planned["attack_network"] == stages(tmp_path)["attack_network"] == 3  # the teacher, and both students


def test_the_plan_has_all_trainings_before_the_choice(tmp_path: Path) -> None:
    with run.opened(tiny(*FEW[:1], "compare.methods=[cgan_kd,nokd]", "student.refit=true"), tmp_path) as road:
        planned = Counter(station.title for station in stations(road))
    for title in ("teacher (seed 0), all labels", "cgan_kd (seed 0), all labels"):
        assert planned[title] == 1


def test_the_runs_of_a_table_train_no_student_again() -> None:
    ready = ["digits"]
    assert not grid(ready, [], [], [])[0].recipe.student.refit
    assert grid(ready, ["student.refit=true"], [], [])[0].recipe.student.refit
