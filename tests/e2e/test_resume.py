"""Killed in any stage, the same command goes on, and ends with the numbers of a run that nobody killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CHECKPOINT_FILE, SLOWER, TINY, Said, kill_in, same


@pytest.mark.long
@pytest.mark.xdist_group("resume")
def test_a_run_killed_in_every_stage_ends_with_the_same_numbers(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["run", "tiny.yaml", *SLOWER, "metrics.generator=false", "--no-report", "--no-export"]
    kill_in("train_network", CHECKPOINT_FILE, 1, words, tmp_path)  # after the data
    kill_in("train_generator", CHECKPOINT_FILE, 5, words, tmp_path, step=20)  # after teacher, nokd, nokd_longer, kd
    kill_in("make_images", "images.u8", 9, words, tmp_path)
    kill_in("train_student", CHECKPOINT_FILE, 11, words, tmp_path, step=10)  # cgan_kd
    assert not (tmp_path / "out" / "results.json").exists()
    assert typed(*words, "--out", "out", "--quiet").code == 0
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    same(tmp_path / "out", tmp_path / "whole")
