"""A run that is given little time stops cleanly with exit code 75, and the same command continues later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CHECKPOINT_FILE, SLOWER, TINY, Said, same


@pytest.mark.long
def test_a_run_in_pieces_ends_with_the_numbers_of_one_in_one_piece(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["run", "tiny.yaml", *SLOWER, "compare.methods=[cgan]", "--quiet", "--no-report", "--no-export"]
    pieces, inside = 0, 0
    while (said := typed(*words, "--out", "out", "--max-minutes", "0.03")).code == 75:
        assert "the time limit is reached" in said.err
        assert not (tmp_path / "out" / "results.json").exists()
        pieces += 1
        inside += any((tmp_path / "out" / "work").glob(f"*/{CHECKPOINT_FILE}"))
        assert pieces < 200
    assert said.code == 0, said.err
    assert pieces > 2
    assert inside, "no piece ended inside a training loop"
    assert typed(*words, "--out", "whole").code == 0
    same(tmp_path / "out", tmp_path / "whole")


def test_no_time_at_all_does_nothing(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    said = typed("run", "tiny.yaml", "--quiet", "--out", "out", "--max-minutes", "0")
    assert said.code == 75
    assert not list((tmp_path / "out").glob("artifacts/*"))


@pytest.mark.parametrize("minutes", ["-1", "soon"])
def test_minutes_are_a_number_from_0(minutes: str, tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert "--max-minutes" in typed("run", "tiny.yaml", "--max-minutes", minutes).sentence()
