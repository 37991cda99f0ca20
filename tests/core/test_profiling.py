"""--profile: shares of named parts, memory, speed, traces; nothing where no stage is computed."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from cgankd.core import profiling
from cgankd.core.profiling import Profile, part
from cgankd.core.run_plan import Station
from cgankd.core.watching import Watched


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setattr(Profile, "every", 0.0)
    return Profile(Console(file=io.StringIO(), width=100))


def printed(profile: Profile) -> str:
    stream = profile.console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def work(folder: Path, profile: Profile, megabytes: int = 0) -> None:
    """A stage whose loop spends most of its time in the part ``large``."""
    with Watched([profile]) as watched:
        watched.opened(folder)
        with watched.stage(Station("key", "teacher (seed 0)", "train_network")), watched.bar("teacher", 6) as bar:
            bar.images = 10
            held = np.ones(megabytes * 2**20, dtype=np.uint8)
            for step in range(6):
                with part("large"):
                    for _ in range(20):
                        torch.rand(200, 200) @ torch.rand(200, 200)
                with part("small"):
                    torch.rand(5, 5) @ torch.rand(5, 5)
                bar.to(step + 1)
            del held
        watched.finish()


def test_parts_of_a_traced_step(tmp_path: Path, profile: Profile) -> None:
    work(tmp_path, profile)
    (stage,) = json.loads((tmp_path / "profile.json").read_text())
    assert stage["stage"] == "teacher (seed 0)"
    assert set(stage["parts"]) == {"large", "small"}
    assert 0 < stage["parts"]["small"] < stage["parts"]["large"] <= 1
    assert stage["trace"] == "profile/01-teacher-seed-0.json.gz"
    with gzip.open(tmp_path / stage["trace"]) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"cgankd: large", "cgankd: small", "aten::matmul"} <= names
    assert "teacher (seed 0)" in printed(profile)
    assert "large" in printed(profile)


def test_peak_memory_is_that_of_the_stage(tmp_path: Path, profile: Profile) -> None:
    if not profiling.RESET.exists():
        pytest.skip("the peak can't begin anew on this system")
    work(tmp_path / "large", profile, megabytes=300)
    work(tmp_path / "small", profile)
    large, small = profile.stages
    assert 250e6 < large.peak_memory - small.peak_memory < 400e6


def test_where_nothing_was_computed_it_says_so(tmp_path: Path, profile: Profile) -> None:
    with Watched([profile]) as watched:
        watched.opened(tmp_path)
        watched.finish()
    assert "all of them were done before" in printed(profile)
    assert not (tmp_path / "profile.json").exists()


def break_a_traced_loop(folder: Path, profile: Profile) -> None:
    with Watched([profile]) as watched:
        watched.opened(folder)
        with watched.stage(Station("key", "teacher", "train_network")), watched.bar("teacher", 6) as bar:
            bar.to(1)
            bar.to(2)  # the trace begins
            raise ValueError("broken")


def test_an_error_in_a_traced_loop_goes_on(tmp_path: Path, profile: Profile) -> None:
    with pytest.raises(ValueError, match="broken"):
        break_a_traced_loop(tmp_path, profile)
    work(tmp_path, profile)  # another trace can begin
    assert [stage.stage for stage in profile.stages] == ["teacher (seed 0)"]


@pytest.mark.long
def test_the_memory_that_a_trace_takes_is_not_counted(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not profiling.RESET.exists():
        pytest.skip("the peak can't begin anew on this system")
    write = profiling._write_trace

    def large(*arguments: Any) -> dict[str, float]:
        assert np.ones(300 * 2**20, dtype=np.uint8)[-1] == 1
        return write(*arguments)

    work(tmp_path / "small", profile)
    monkeypatch.setattr(profiling, "_write_trace", large)
    work(tmp_path / "large", profile)
    small, same = profile.stages
    assert same.peak_memory - small.peak_memory < 150e6
