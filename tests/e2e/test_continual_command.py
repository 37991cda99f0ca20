"""The command continual: it lists its recipes, prints its table, and refuses in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Said

SHORT = [
    "data.source=digits", "data.train_size=100", "network=cnn8", "tasks=2", "seeds=[0]", "fit.steps=3",
    "fit.batch_size=16", "runtime.threads=1", "runtime.precision=fp32",
]  # fmt: skip


def test_it_lists_its_recipes(typed: Callable[..., Said]) -> None:
    listed = typed("continual").out
    assert "continual-fashion" in listed
    assert "continual-cifar10" in listed
    (line,) = [line for line in typed("recipes").out.splitlines() if line.startswith("continual-cifar10")]
    assert line.split()[1] == "continual"


def test_it_prints_the_table_it_writes(tmp_path: Path, typed: Callable[..., Said]) -> None:
    said = typed("continual", "continual-fashion", *SHORT, "--out", "out", "--quiet")
    assert said.code == 0, said.err
    assert said.out.startswith((tmp_path / "out" / "table.md").read_text())
    assert said.out.startswith("## continual-fashion: digits, 2 tasks, cnn8")


def test_no_time_at_all_ends_with_the_code_of_a_batch_queue(tmp_path: Path, typed: Callable[..., Said]) -> None:
    said = typed("continual", "continual-fashion", *SHORT, "--out", "out", "--quiet", "--max-minutes", "0")
    assert said.code == 75
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["fashionn"],
            "'fashionn' is neither a ready recipe nor an existing YAML file; ready recipes: continual-",
        ),
        (["continual-fashion", "tasks=3", *SHORT[:3]], "tasks = 3, but 10 classes can't be cut"),
        (["continual-fashion", "wieght=3"], "key 'wieght' is not known (did you mean 'weight'?)"),
        (["continual-fashion", "network=resnett8", *SHORT[:2]], "network 'resnett8' is not known"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_writes_nothing(
    tmp_path: Path, typed: Callable[..., Said], words: list[str], said: str
) -> None:
    assert said in typed("continual", *words, "--out", "out", "--quiet").sentence()
    assert not list(tmp_path.iterdir())
