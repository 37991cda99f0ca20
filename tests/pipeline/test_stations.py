"""The stations of a run are known before it starts, and what its results change is found out on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_run_road import tiny

from cgankd.core.run_plan import Station
from cgankd.core.watching import Output, Watched
from cgankd.pipeline import run, stations

FIXED = "synthesis.subsampling.fall_back=false"  # then no result changes which stages there are


class Seen(Output):
    """The first plan, and the stages that ran."""

    def __init__(self) -> None:
        self.first: list[Station] = []
        self.ran: list[tuple[str, int, int]] = []

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        if event == "run_started":
            self.first = list(watched.run_plan._all().values())
        elif event == "stage_started":
            self.ran.append((fields["kind"], fields["number"], fields["of"]))


def watch(out: Path, *overrides: str) -> tuple[Seen, Watched]:
    seen = Seen()
    with Watched([seen]) as watched:
        run.run(tiny(*overrides), out, watched)
    return seen, watched


def artifacts(out: Path) -> set[str]:
    return {path.name.rpartition("-")[2] for path in (out / "artifacts").iterdir()}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("vary=everything", "compare.methods=[nokd, cgan]"), marks=pytest.mark.long),
        ("seeds=[0]", "compare.methods=[nokd_longer, pseudo, cgan, cgan+kd]", "compare.ablation=true",
         "metrics.robustness=true", "metrics.robustness.images=20", "metrics.robustness.steps=1"),
        pytest.param(
            ("seeds=[0]", "teacher.jury=[{network: cnn8}]", "teacher.votes=mean",
             "ratio.features={kind: classifier, network: cnn8, steps: 3}"), marks=pytest.mark.long,
        ),
        ("seeds=[0]", "synthesis.subsampling={kind: none}", "synthesis.filter=null", "metrics.generator=false"),
    ],
)  # fmt: skip
def test_the_first_plan_is_what_the_run_computes_in_the_same_order(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    fixed = () if any("subsampling" in override for override in overrides) else (FIXED,)
    seen, watched = watch(tmp_path, *overrides, *fixed)
    # which students the last stage shows depends on their scores
    assert seen.first[-1].kind == "find_worst_answers"
    assert {station.key for station in seen.first[:-1]} <= artifacts(tmp_path)
    assert [kind for kind, _, _ in seen.ran] == [station.kind for station in seen.first]
    total = len(seen.first)
    assert [(number, of) for _, number, of in seen.ran] == [(place, total) for place in range(1, total + 1)]
    assert watched.run_plan.done == watched.run_plan.total == total


def test_stages_in_the_cache_count_as_done(tmp_path: Path) -> None:
    # one row, because the last stage shows the students with the best scores
    words = ("seeds=[0]", "metrics.generator=false", "compare.methods=[cgan_kd]", FIXED)
    seen, _ = watch(tmp_path, *words)
    (student,) = (tmp_path / "artifacts").glob("train_student-*")
    shutil.rmtree(student)
    again, watched = watch(tmp_path, *words)
    total = len(seen.first)
    assert again.ran == [("train_student", total, total)]
    done = [station for station in again.first if station.seconds is not None]
    assert len(done) == total - 1
    assert watched.run_plan.left(None, 0.0, None) == 0.0


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(
            ("search={rho: [0.5, 0.9], labels: [], images: [20, 60], patience: 2, steps: 3}",), marks=pytest.mark.long
        ),
    ],
)
def test_what_results_change_is_found_out_on_the_way(
    tmp_path: Path, overrides: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cgankd.synthesis import checks

    def fails(*_: Any) -> dict[str, Any]:
        return {"passed": False, "reasons": ["it always fails"]}

    monkeypatch.setattr(checks, "check", fails)
    seen, watched = watch(tmp_path, "seeds=[0]", *overrides)
    assert "burn_in" in [station.kind for station in seen.first]  # as if the density ratio passed its checks
    assert "burn_in" not in [kind for kind, _, _ in seen.ran]
    total = watched.run_plan.total
    assert watched.run_plan.done == total
    assert len(seen.ran) == len(artifacts(tmp_path)) < total  # the skipped stages count as done
    numbers = [number for _, number, _ in seen.ran]
    assert numbers == sorted(set(numbers))
    assert seen.ran[-1][1:] == (total, total)
    if not overrides:  # of a search, trials are skipped too
        assert total == len(seen.first) == len(seen.ran) + 1


def test_planning_computes_and_writes_nothing(tmp_path: Path) -> None:
    listed: list[Station] = []

    class Stops(Exception):
        pass

    class Planned(Watched):
        def plan(self, stations: Callable[[], Sequence[Station]]) -> None:
            listed.extend(stations())
            raise Stops

    with pytest.raises(Stops):
        run.run(tiny(), tmp_path, Planned())
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "work").exists()
    assert [station.title for station in listed][:6] == [
        "data", "teacher (seed 0)", "teacher (seed 0), test split", "nokd (seed 0)", "nokd (seed 0), test split",
        "generator",
    ]  # fmt: skip
    step = 2.8e-4 * 0.1**0.6  # the least work that any network has
    fitted = {station.title: (station.alike, station.amount) for station in listed if station.alike.startswith("fit")}
    assert fitted == {
        "teacher (seed 0)": ("fit cnn8", pytest.approx(6 * 16 * step)),
        "nokd (seed 0)": ("fit cnn8 False", pytest.approx(4 * 16 * step)),
        "nokd (seed 1)": ("fit cnn8 False", pytest.approx(4 * 16 * step)),
        "cgan_kd (seed 0)": ("fit cnn8 True", pytest.approx(5 * 16 * step * 1.5)),
        "cgan_kd (seed 1)": ("fit cnn8 True", pytest.approx(5 * 16 * step * 1.5)),
    }


def test_a_generator_of_larger_images_takes_longer_as_networks_do() -> None:
    gan = SimpleNamespace(steps=10, batch_size=64, discriminator_steps=1)
    small, large = (stations._amount("train_generator", {"gan": gan}, stations._work, pixels) for pixels in (1.0, 2.3))
    assert large[1] == pytest.approx(2.3 * small[1])


def test_a_network_with_more_operations_takes_longer() -> None:
    small, large = (stations._work(name, 3, (32, 32), 10) for name in ("cnn16", "resnet18"))
    assert small == pytest.approx(1.0, abs=0.05)
    assert large == pytest.approx((1.1108e9 / 5e6) ** 0.6, rel=0.01)  # 0.555 billion multiplications and additions
