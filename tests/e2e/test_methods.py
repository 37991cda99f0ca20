"""`cgankd methods`: the distillation methods as their classes describe them."""

from __future__ import annotations

from collections.abc import Callable

from commands import Said

from cgankd.distill import METHODS

Typed = Callable[..., Said]


def test_methods_are_listed_with_what_they_need(typed: Typed) -> None:
    said = typed("methods")
    assert (said.code, said.err) == (0, "")
    title, *lines = said.out.splitlines()
    assert title.split() == ["method", "matches", "tasks", "needs", "settings", "paper"]
    rows = {line.split()[0]: line for line in lines if line[0] != " "}
    assert sorted(rows) == sorted(METHODS)
    assert "relation" in rows["rkd"]
    assert "classification, regression" in rows["rkd"]
    assert " inside " in rows["rkd"]
    assert "distance 25, angle 50" in rows["rkd"]
    assert "arXiv 1904.05068" in rows["rkd"]
    assert " outputs " in rows["tbr"]
    assert "classification" not in rows["tbr"]
