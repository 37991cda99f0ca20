"""Robustness in a run: what it adds to results and artifacts, what it leaves as it was, what is refused."""

from __future__ import annotations

import copy
import statistics
from pathlib import Path
from typing import Any

import pytest

from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.core.errors import UserError
from cgankd.core.files import read_json
from cgankd.pipeline import run

TINY: dict[str, Any] = {
    "demonstration": True,
    "seeds": [0, 1],
    "data": {"source": "digits", "train_size": 60, "val_size": 10},
    "teacher": {"network": "cnn8", "fit": {"steps": 6, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 4, "batch_size": 16}, "transfer_steps": 4},
    "compare": {"methods": ["nokd_longer", "kd"]},
    "runtime": {"threads": 1, "precision": "fp32"},
}
ON = (
    "metrics.robustness=true",
    "metrics.robustness.eps=0.1",
    "metrics.robustness.steps=2",
    "metrics.robustness.images=30",
)


def tiny(*overrides: str) -> Recipe:
    return recipe.from_tree(copy.deepcopy(TINY), overrides)


def made(out: Path) -> set[str]:
    return {path.name for path in (out / "artifacts").iterdir()}


def test_it_adds_scores_and_artifacts_and_changes_none(tmp_path: Path) -> None:
    plain = run.run(tiny(), tmp_path)
    before = made(tmp_path)
    assert "robustness" not in plain
    found = run.run(tiny(*ON), tmp_path)
    added = made(tmp_path) - before
    assert before <= made(tmp_path)
    assert {name.rsplit("-", 1)[0] for name in added} == {"attack_network"}
    assert len(added) == 5  # the teacher, two seeds of two rows
    assert found["robustness"] == {
        "eps": 0.1, "steps": 2, "step_size": None, "attacks": ["pgd"], "images": 30,
    }  # fmt: skip
    described = [read_json(tmp_path / "artifacts" / name / "artifact.json") for name in sorted(added)]
    assert all(artifact["summary"]["attacked"] <= artifact["summary"]["clean"] for artifact in described)
    by_network = {artifact["arguments"]["network"]["StoredNetwork"]: artifact["summary"] for artifact in described}
    for row in found["rows"]:
        keys = [Path(path).name.rsplit("-", 1)[1] for path in found["artifacts"]["students"][row["method"]]]
        for name, of in (("clean", "clean"), ("pgd", "attacked")):
            values = [by_network[key][of] for key in keys]
            expected = {"values": values, "mean": statistics.fmean(values), "std": statistics.stdev(values)}
            assert row["robustness"][name] == expected
        assert {key: value for key, value in row.items() if key != "robustness"} in plain["rows"]
    assert found["teacher"]["robustness"]["pgd"]["std"] is None
    run.run(tiny(*ON, "metrics.robustness.eps=0.2"), tmp_path)
    assert len(made(tmp_path)) == len(before) + 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("student.fit.adversarial={eps: 0.05}",),
            r"fit\.adversarial is set, but method 'kd' asks the teacher about unchanged images; allowed",
        ),
        (
            (*ON, "metrics.robustness.attacks=[autoattack]", "data.source=rotated-fashion", "data.turns=1"),
            r"holds autoattack, whose losses need 4 classes or more, .* a number in degrees; allowed: pgd",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_before_training(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run.run(tiny(*words), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("metrics.robustness.eps=2", "metrics.robustness.eps"),
        ("metrics.robustness.attacks=[]", "metrics.robustness.attacks"),
        ("metrics.robustness.attacks=[fgsm]", "metrics.robustness.attacks"),
        ("teacher.fit.adversarial={eps: 0}", "teacher.fit.adversarial.eps"),
        ("teacher.fit.adversarial={epsilon: 0.1}", "teacher.fit.adversarial.epsilon"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(word: str, key: str) -> None:
    with pytest.raises(UserError, match=key):
        tiny(word)


def test_a_recipe_with_an_attack_reads_back_as_it_was(tmp_path: Path) -> None:
    for words in ((), ("teacher.fit.adversarial={eps: 0.05}", *ON)):
        path = tmp_path / "recipe.yaml"
        path.write_text(tiny(*words).to_yaml())
        assert recipe.load(str(path)) == tiny(*words)
