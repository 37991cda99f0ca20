"""Which results are stale when a method's numbers change: its own, and no other method's."""

from __future__ import annotations

import types
from typing import Any

import pytest
from lightning_fabric import Fabric

from cgankd import distill
from cgankd.config import recipe
from cgankd.core.progress import SILENT
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.distill import METHODS
from cgankd.pipeline.road import Road

TREE = {"seeds": [0], "data": {"source": "digits", "train_size": 60}}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return sources.load(recipe.from_tree(TREE, []).data)


def described(method: str, splits: Splits, fabric: Fabric, *overrides: str) -> dict[str, Any]:
    """The settings that the student's key is made of."""
    seen: list[dict[str, Any]] = []

    def stage(name: str, settings: dict[str, Any], inputs: dict[str, str], build: Any) -> Any:
        seen.append(settings)
        return types.SimpleNamespace(key="")

    wanted = recipe.from_tree(TREE, [f"compare.methods=[{method}]", *overrides])
    folder: Any = types.SimpleNamespace(stage=stage)
    Road(wanted, splits, folder, fabric, SILENT).student(method, 0)
    return seen[-1]


def test_versions_count_from_two_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["rkd"], "version", 3)
    monkeypatch.setattr(METHODS["pkt"], "version", 1)
    assert distill.versions("kd+rkd@fake+pkt", "classification") == {"rkd": 3}
    assert distill.versions("supervised", "classification") == {}


def test_a_tasks_own_numbers_are_in_the_key_of_that_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["sp"], "task_defaults", {"regression": {"weight": 5.0}})
    assert distill.versions("kd+sp", "classification") == {}
    assert distill.versions("kd+sp", "regression") == {"regression": {"sp": {"weight": 5.0}}}


def test_a_raised_version_is_in_the_key_of_what_stacks_the_method(
    splits: Splits, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: described(name, splits, fabric) for name in ("kd", "kd+sp")}
    monkeypatch.setattr(METHODS["sp"], "version", 2)
    after = {name: described(name, splits, fabric) for name in ("kd", "kd+sp")}
    assert after["kd"] == before["kd"]
    assert after["kd+sp"] == {**before["kd+sp"], "method_versions": {"sp": 2}}


def test_the_version_of_what_teaches_for_a_method_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = distill.versions("flow", "regression")
    monkeypatch.setattr(METHODS["pkt"], "version", 7)
    monkeypatch.setattr(METHODS["pkt"], "task_defaults", {"regression": {"weight": 5.0}})
    after = distill.versions("flow", "regression")
    assert after == before | {"pkt": 7, "regression": {"pkt": {"weight": 5.0}}}
    assert distill.versions("kd+takd", "regression") == {}


def test_a_methods_own_numbers_are_in_the_keys_of_what_it_is_involved_in_alone(
    splits: Splits, fabric: Fabric
) -> None:
    others = "student.method_settings={crd: {weight: 3.0}, pkt: {weight: 2.0}}"
    for name in ("kd", "sp"):
        assert described(name, splits, fabric, others) == described(name, splits, fabric)
    own = {name: described(name, splits, fabric, others)["method_settings"]["own"] for name in ("kd+crd", "flow")}
    assert own == {"kd+crd": {"crd": {"weight": 3.0}}, "flow": {"pkt": {"weight": 2.0}}}


def test_a_first_version_adds_nothing(splits: Splits, fabric: Fabric) -> None:
    # results that were measured before there were versions keep their keys
    found = described("pkt", splits, fabric)
    assert set(found) == {"task", "network", "method", "fit", "seed", "method_settings"}
    assert set(found["method_settings"]) == {"temperature", "label_weight", "teacher_weight"}


def test_methods_whose_numbers_have_changed_say_so() -> None:
    assert {name for name, made in METHODS.items() if made.version > 1} == {
        "mlkd",
        "ls-mlkd",
        "flow",
        "rkd",
        "atkd",
        "ab",
    }
