"""student.ships: which weights the table scores and the commands take; the training is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from test_run_road import tiny

from cgankd.core.files import load_tensors
from cgankd.core.progress import Progress
from cgankd.core.store import Work
from cgankd.data import sources
from cgankd.nets.inference import outputs
from cgankd.pipeline import run
from cgankd.shipping.finished import FinishedRun
from cgankd.training import scoring

FEW = (
    "seeds=[0]", "compare.methods=[nokd]", "metrics.generator=false", "student.fit.steps=40",
    "student.fit.schedule=constant", "student.fit.learning_rate=0.2",
)  # fmt: skip


@pytest.mark.parametrize("file", ["weights", "best"])
def test_the_row_and_the_opened_student_are_those_of_the_weights_that_ship(
    tmp_path: Path, fabric: Fabric, file: str
) -> None:
    recipe = tiny(*FEW, f"student.ships={'last' if file == 'weights' else 'best'}")
    results = run.run(recipe, tmp_path)
    (row,) = results["rows"]
    assert row["weights"]["best_steps"][0] < 40  # so that the two differ
    assert row["values"] == row["weights"][recipe.student.ships]["test"]["values"]
    assert results["best"]["val"] == row["weights"][recipe.student.ships]["val"]["mean"]
    student = FinishedRun.open(tmp_path).student(fabric)
    stored = load_tensors(tmp_path / results["artifacts"]["students"]["nokd"][0] / f"{file}.safetensors")[0]
    for name, tensor in student.network.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    splits = sources.load(recipe.data)
    score = scoring.metric(Work(fabric), student.network, splits.test, splits.task)
    assert score == pytest.approx(row["mean"])
    assert (student.facts["test"], student.facts["weights"]) == (row["mean"], recipe.student.ships)


class Scores(Progress):
    """Notes the scores that a run shows."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, dict[str, float]]] = []

    def score(self, row: str, seed: int, scores: Any, metric: str = "", metric_unit: str = "") -> None:
        self.shown.append((row, dict(scores)))


@pytest.mark.parametrize("ships", ["last", "best"])
def test_shown_scores_and_the_worst_images_are_those_of_the_weights_that_ship(
    tmp_path: Path, fabric: Fabric, ships: str
) -> None:
    seen = Scores()
    results = run.run(tiny(*FEW, f"student.ships={ships}"), tmp_path, seen)
    (row,) = results["rows"]
    assert row["weights"]["last"]["test"]["mean"] != row["weights"]["best"]["test"]["mean"]
    assert seen.shown == [("nokd", {"validation": row["val"]["mean"], "test": row["mean"]})]
    student = FinishedRun.open(tmp_path).student(fabric)
    worst = load_tensors(tmp_path / results["artifacts"]["worst"] / "worst.safetensors")[0]
    answers = outputs(Work(fabric), student.network, worst["images"])
    assert torch.allclose(answers.softmax(1).amax(1), worst["nokd_probabilities"], atol=1e-5)
    every = load_tensors(tmp_path / results["artifacts"]["worst"] / "answers.safetensors")[0]
    assert len(every["labels"]) == results["counts"]["test"]
    right = (every["nokd_predictions"] == every["labels"]).double().mean().item()
    assert 100.0 * right == pytest.approx(row["mean"])


def test_the_choice_trains_nothing_again(tmp_path: Path) -> None:
    last = run.run(tiny(*FEW), tmp_path)
    best = run.run(tiny(*FEW, "student.ships=best"), tmp_path)
    assert best["artifacts"].pop("worst") != last["artifacts"].pop("worst")
    assert best["artifacts"] == last["artifacts"]
    assert best["rows"][0]["weights"]["last"] == last["rows"][0]["weights"]["last"]
    assert best["rows"][0]["val"]["mean"] > last["rows"][0]["val"]["mean"]
