"""student.ships: which weights the table scores and the commands take; the training is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from test_run_road import tiny

from cgankd.core.files import load_tensors
from cgankd.core.store import Work
from cgankd.data import sources
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
    score = scoring.metric(Work(fabric), student.network, splits.test, splits.task)[0]
    assert score == pytest.approx(row["mean"])
    assert (student.facts["test"], student.facts["weights"]) == (row["mean"], recipe.student.ships)


def test_the_choice_trains_nothing_again(tmp_path: Path) -> None:
    last = run.run(tiny(*FEW), tmp_path)
    best = run.run(tiny(*FEW, "student.ships=best"), tmp_path)
    assert best["artifacts"] == last["artifacts"]
    assert best["rows"][0]["weights"]["last"] == last["rows"][0]["weights"]["last"]
    assert best["rows"][0]["val"]["mean"] > last["rows"][0]["val"]["mean"]
