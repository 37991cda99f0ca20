"""Which results are stale when a method's numbers change: its own, and no other method's."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from forwards import SCALAR, classes

from cgankd.config import recipe
from cgankd.config.settings import StudentSettings
from cgankd.core.hashing import describe
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.distill import METHODS, MethodStack
from cgankd.pipeline.run import Run
from cgankd.tasks import Task

TREE = {"seeds": [0], "data": {"source": "digits", "train_size": 60}}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return sources.load(recipe.from_tree(TREE, []).data)


class Watched:
    """In a store's place: computes nothing, and notes what the keys are made of."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.artifacts = Path("nowhere")

    def titled(self, title: str) -> Watched:
        return self

    def call(self, function: Any, **arguments: Any) -> Any:
        self.seen.append(describe(arguments))
        return types.SimpleNamespace(key="", content_key=function.__name__)


def described(method: str, splits: Splits, *overrides: str) -> dict[str, Any]:
    """What the student's key is made of."""
    wanted, store = recipe.from_tree(TREE, [f"compare.methods=[{method}]", *overrides]), Watched()
    Run(wanted, splits, store).trial(method, 0, wanted.student.transfer_steps)  # type: ignore[arg-type]
    return store.seen[-1]


def key(name: str, task: Task, **settings: Any) -> str:
    return MethodStack.of(name, task, StudentSettings(**settings)).content_key


CLASSES = classes(3)


def test_a_version_is_in_the_key_of_what_stacks_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("kd+rkd@fake+pkt", "kd+pkt", "supervised")
    before = {name: key(name, CLASSES) for name in names}
    assert len(set(before.values())) == 3
    monkeypatch.setattr(METHODS["rkd"], "version", METHODS["rkd"].version + 1)
    changed = {name for name in names if key(name, CLASSES) != before[name]}
    assert changed == {"kd+rkd@fake+pkt"}


def test_a_tasks_own_numbers_are_in_the_key_of_that_task(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [key("kd+sp", task) for task in (CLASSES, SCALAR)]
    monkeypatch.setattr(METHODS["sp"], "task_defaults", {"regression": {"weight": 5.0}})
    after = [key("kd+sp", task) for task in (CLASSES, SCALAR)]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert MethodStack.of("kd+sp", SCALAR).numbers["sp"] == {"weight": 5.0}


def test_a_raised_version_makes_a_student_stale(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: described(name, splits) for name in ("kd", "kd+sp")}
    monkeypatch.setattr(METHODS["sp"], "version", 2)
    after = {name: described(name, splits) for name in ("kd", "kd+sp")}
    assert after["kd"] == before["kd"]
    assert after["kd+sp"]["student"].pop("methods") != before["kd+sp"]["student"].pop("methods")
    assert after["kd+sp"] == before["kd+sp"]


def test_the_version_of_what_teaches_for_a_method_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("flow", "kd+takd")
    keys = [{name: key(name, SCALAR) for name in names}]
    monkeypatch.setattr(METHODS["pkt"], "version", 7)
    keys.append({name: key(name, SCALAR) for name in names})
    monkeypatch.setattr(METHODS["pkt"], "task_defaults", {"regression": {"weight": 5.0}})
    keys.append({name: key(name, SCALAR) for name in names})
    assert len({made["flow"] for made in keys}) == 3
    assert len({made["kd+takd"] for made in keys}) == 1


def test_a_methods_own_numbers_are_in_the_keys_of_what_it_is_involved_in_alone(splits: Splits) -> None:
    others = "student.method_settings={crd: {weight: 3.0}, pkt: {weight: 2.0}}"
    for name in ("kd", "sp"):
        assert described(name, splits, others) == described(name, splits)
    settings = StudentSettings(method_settings={"crd": {"weight": 3.0}, "pkt": {"weight": 2.0}})
    for name, own in (("kd+crd", "crd"), ("flow", "pkt")):
        assert described(name, splits, others) != described(name, splits)
        plain, changed = (MethodStack.of(name, CLASSES, chosen).numbers for chosen in (None, settings))
        assert changed == {**plain, own: {**plain[own], "weight": settings.method_settings[own]["weight"]}}


@pytest.mark.parametrize(
    ("setting", "value", "read_by"),
    [("temperature", 2.0, {"kd", "dkd", "kd+takd"}), ("label_weight", 0.3, {"kd", "kd+takd"}),
     ("teacher_weight", 0.3, {"kd", "kd+takd"})],
)  # fmt: skip
def test_a_setting_of_the_student_is_in_the_keys_of_the_methods_that_read_it(
    setting: str, value: float, read_by: set[str]
) -> None:
    names = ("kd", "dkd", "pkt", "flow", "kd+takd", "ls-dkd", "supervised")
    assert {name for name in names if key(name, CLASSES) != key(name, CLASSES, **{setting: value})} == read_by
    if setting == "temperature":  # a scalar has none
        assert key("kd", SCALAR) == key("kd", SCALAR, temperature=value)


def test_what_is_in_a_key_is_what_the_method_computes_with() -> None:
    settings = StudentSettings(temperature=3.0, method_settings={"takd": {"first": 0.5}, "kd": {"temperature": 2.0}})
    stack = MethodStack.of("takd+dkd", CLASSES, settings)
    made = {method.name: method.values for method, _ in stack.create(CLASSES).stacked}
    ((lesson, _),) = stack.create(CLASSES).teaching("kd").stacked
    assert {**made, "kd": lesson.values} == stack.numbers
    assert [stack.numbers[name]["temperature"] for name in ("takd", "dkd", "kd")] == [3.0, 3.0, 2.0]


def test_methods_whose_numbers_have_changed_say_so() -> None:
    assert {name for name, made in METHODS.items() if made.version > 1} == {
        "mlkd",
        "ls-mlkd",
        "flow",
        "rkd",
        "atkd",
        "ab",
    }
