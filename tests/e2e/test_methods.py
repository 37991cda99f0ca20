"""`cgankd methods`: the distillation methods as their classes describe them, all in short or one at length."""

from __future__ import annotations

from collections.abc import Callable

from commands import Said

from cgankd.distill import METHODS

Typed = Callable[..., Said]


def test_methods_are_listed_in_a_line_each(typed: Typed) -> None:
    said = typed("methods")
    assert (said.code, said.err) == (0, "")
    listed, _, apart = said.out.partition("\n\n")
    title, *lines = listed.splitlines()
    assert " ".join(apart.split()).startswith(
        "Methods can be combined: kd+rkd. Before a method: cgan+ (generated images too), pseudo+ (unlabelled images "
        "too), cgan+pseudo+ (both). Other commands have their own methods: cgankd continual"
    )
    assert title.split() == ["method", "matches", "tasks", "needs", "paper"]
    assert all(len(line.rstrip()) <= 80 for line in lines)
    rows = {line.split()[0]: line.split() for line in lines}
    assert sorted(rows) == sorted(METHODS)
    assert len(rows) == len(lines)
    assert rows["rkd"] == ["rkd", "relation", "both", "inside", "arXiv", "1904.05068"]
    assert rows["tbr"][1:4] == ["output", "scalars", "outputs"]
    assert rows["sskd"][2] == "classes"


def test_one_method_is_told_at_length(typed: Typed) -> None:
    said = typed("methods", "rkd")
    assert (said.code, said.err) == (0, "")
    words = " ".join(said.out.split())
    for expected in (
        "rkd: Relational knowledge distillation (RKD)",
        "relation, at penultimate",
        "Huber",
        "classification, regression",
        "student.method_settings.rkd: distance 25, angle 50",
        "arXiv 1904.05068",
        "distance mean_ij H(d_ij^s, d_ij^t) + angle",
    ):
        assert expected in words


def test_settings_that_a_method_lacks_are_not_made_up(typed: Typed) -> None:
    assert "none of its own" in typed("methods", "kd").out


def test_a_method_that_is_not_known_is_named(typed: Typed) -> None:
    assert "'rkdd' is not known (did you mean 'rkd'?); allowed: ab, at," in typed("methods", "rkdd").sentence()
