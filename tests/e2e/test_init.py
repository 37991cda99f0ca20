"""From a folder to a recipe that runs, as a new user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Said, write_bars

from cgankd.config import recipe

Typed = Callable[..., Said]


def test_a_folder_becomes_a_recipe(tmp_path: Path, typed: Typed) -> None:
    write_bars(tmp_path / "bars")
    said = typed("init", "bars", "unit=degrees", "--budget", "2m")
    assert said.code == 0, said.err
    assert "task: regression, labels " in said.out
    assert "data.unit=degrees: as you said" in said.out
    assert "bars.yaml written. cgankd run bars.yaml takes about " in said.out
    made = recipe.load("bars.yaml")
    assert (made.data.source, made.data.unit, made.seeds) == ("bars", "degrees", (0,))
    assert made.compare.methods == ("nokd_longer", "kd", "fm", "cgan_kd", "cgan+fm")
    again = typed("init", "bars")
    assert "bars.yaml exists; give --out another name" in again.sentence()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "data.source 'nowhere' does not exist"),
        (["bars", "--budget", "soon"], "--budget 'soon' is no time; allowed: a number with s, m or h"),
        (["bars", "sise=32"], "key 'data.sise' is not known (did you mean 'size'?)"),
    ],
)
def test_what_is_not_allowed_is_answered_in_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, typed: Typed
) -> None:
    write_bars(tmp_path / "bars", 20)
    assert sentence in typed("init", *words).sentence()
    assert not list(tmp_path.glob("*.yaml"))
