"""--profile: shares of named parts, memory, speed, traces; nothing where no stage is computed."""

from __future__ import annotations

import gzip
import io
import json
import sys
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
                with part("backward"), part("small"):
                    torch.rand(5, 5) @ torch.rand(5, 5)
                bar.to(step + 1)
            del held
        watched.finish()


def test_parts_of_a_traced_step(tmp_path: Path, profile: Profile) -> None:
    work(tmp_path, profile)
    (stage,) = json.loads((tmp_path / "profile.json").read_text())
    assert stage["stage"] == "teacher (seed 0)"
    assert set(stage["parts"]) == {"large", "small", "backward"}
    assert 0 < stage["parts"]["small"] < stage["parts"]["large"] <= 1
    assert stage["trace"] == "profile/01-teacher-seed-0.json.gz"
    with gzip.open(tmp_path / stage["trace"]) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"cgankd: large", "cgankd: small", "aten::matmul"} <= names
    assert "teacher (seed 0)" in printed(profile)
    assert "large" in printed(profile)


class Ticking:
    """A clock that each call of it moves by a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


def loop(watched: Watched, title: str, names: tuple[str, ...], seconds: float, ticking: Ticking) -> None:
    """Four steps; the first tick is at the second one, and starts the clock, which the third one stops."""
    with watched.bar(title, 4) as bar:
        for step in range(4):
            for name in names:
                with part(name):
                    ticking.now += seconds - 1.0
            bar.to(step + 1)


def test_the_floor_is_what_a_step_can_t_do_without(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking = Ticking()
    monkeypatch.setattr(profiling, "time", ticking)
    with Watched([profile]) as watched:
        watched.opened(tmp_path)
        with watched.stage(Station("a", "trained", "train_network")):
            loop(watched, "a", ("batch", "teacher", "student", "loss", "backward", "optimizer"), 5.0, ticking)
        with watched.stage(Station("b", "measured", "measure_generator")):
            loop(watched, "b", ("validation",), 5.0, ticking)
        watched.finish()
    trained, measured = profile.stages
    # each part takes 5 seconds, and a second passes between two of them, before the first and after the last
    assert trained.parts == dict.fromkeys(trained.parts, 5 / (6 * 6 + 1))
    assert trained.floor == pytest.approx(4 * 5 / 37)
    assert (measured.parts, measured.floor) == ({"validation": 5 / 7}, None)
    assert "54%" in printed(profile)
    assert part("student") is profiling.NO_PART  # nothing is measured any more


def test_of_several_loops_the_longest_one_counts(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking, lasted = Ticking(), {"short": 1.0, "long": 9.0, "last": 2.0}
    monkeypatch.setattr(profiling, "time", ticking)
    monkeypatch.setattr(
        Watched, "emit", lambda self, event, **fields: profile.event(
            event, fields | ({"seconds": lasted[fields["loop"]]} if event == "loop_ended" else {}), self
        ),
    )  # fmt: skip
    with Watched([profile]) as watched:
        watched.opened(tmp_path)
        with watched.stage(Station("a", "generator", "train_generator")):
            for title in lasted:
                loop(watched, title, ("forward", f"of {title}"), 5.0, ticking)
    assert set(profile.stages[0].parts) == {"forward", "of long"}


def test_peak_memory_is_that_of_the_stage(tmp_path: Path, profile: Profile) -> None:
    if not profiling.RESET.exists():
        pytest.skip("the peak can't begin anew on this system")
    work(tmp_path / "large", profile, megabytes=300)
    work(tmp_path / "small", profile)
    large, small = profile.stages
    assert 250e6 < large.peak_memory - small.peak_memory < 400e6


def test_the_peak_of_other_systems_is_that_since_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "STATUS", tmp_path / "missing")
    assert profiling.peak_memory() > 1e6
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert profiling.peak_memory() == 0


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
    write = torch.profiler.profile.export_chrome_trace

    def large(self: torch.profiler.profile, path: str) -> Any:
        assert np.ones(300 * 2**20, dtype=np.uint8)[-1] == 1
        return write(self, path)

    work(tmp_path / "small", profile)
    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", large)
    work(tmp_path / "large", profile)
    small, same = profile.stages
    assert same.peak_memory - small.peak_memory < 150e6
