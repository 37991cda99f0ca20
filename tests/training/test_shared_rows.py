"""Several processes train one network: the weights are those of one process, for every method."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import shared_lessons
import torch
from lightning_fabric import Fabric

from cgankd.core.store import Store
from cgankd.distill import METHODS

# What is exchanged differs: nothing but outputs; cached outputs; pairs of images; maps and layers with batch
# normalisation of their own; gradients by images; extra views and a head that is trained before; a network that is
# trained before; images that are mixed with those of the other process.
LESSONS = [
    "supervised", "supervised/clipped", "supervised/attacked", "kd", "kd/no-views", "kd/mixed", "rkd", "fitnet",
    "kd+kdiga", "kd+sskd", "takd", "crd@fake",
]  # fmt: skip


def in_processes(count: int, folder: Path, lessons: Sequence[str]) -> None:
    """Do the lessons in ``count`` processes, the first of which starts the others."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, shared_lessons.__file__, str(folder), str(count), *lessons]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def check_equal(lessons: Sequence[str], one: Path, several: Path, fabric: Fabric) -> None:
    """Both folders hold the lessons, and all weights have moved alike."""
    stores = [Store(folder, fabric) for folder in (one, several)]
    for lesson in lessons:
        expected, found = (shared_lessons.learn(store, lesson) for store in stores)
        assert list(found) == list(expected)
        for name, change in expected.items():
            largest = float(change.abs().max())
            torch.testing.assert_close(found[name], change, rtol=0.0, atol=5e-3 * largest + 1e-6, msg=f"{lesson} {name}")
    for store in stores:
        store.close()


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, fabric: Fabric) -> None:
    in_processes(2, tmp_path / "two", LESSONS)
    finished = sorted((tmp_path / "two" / "artifacts").iterdir())
    assert len(finished) == len(LESSONS)
    check_equal(LESSONS, tmp_path / "one", tmp_path / "two", fabric)
    assert sorted((tmp_path / "two" / "artifacts").iterdir()) == finished  # nothing was computed again


@pytest.mark.long
def test_four_processes_end_with_the_weights_of_one_for_every_method(tmp_path: Path, fabric: Fabric) -> None:
    in_processes(4, tmp_path / "four", sorted(METHODS))
    check_equal(sorted(METHODS), tmp_path / "one", tmp_path / "four", fabric)
