"""Killed in any stage, the same command goes on, and ends with the numbers of a run that nobody killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SLOWER, TINY, Said, kill_in, same

from cgankd.core.store import CHECKPOINT


@pytest.mark.xdist_group("resume")
def test_a_run_killed_in_every_stage_ends_with_the_same_numbers(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["run", "tiny.yaml", *SLOWER]
    kill_in("teacher", CHECKPOINT, 1, words, tmp_path)  # after the data
    kill_in("generator", CHECKPOINT, 5, words, tmp_path, step=20)  # after teacher, nokd, nokd_longer, kd
    kill_in("synthesis", "images.u8", 7, words, tmp_path)
    kill_in("student", CHECKPOINT, 9, words, tmp_path, step=10)  # cgan_kd
    assert not (tmp_path / "out" / "results.json").exists()
    assert typed(*words, "--out", "out", "--quiet").code == 0
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    same(tmp_path / "out", tmp_path / "whole")
