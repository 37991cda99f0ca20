"""The headline claims a gain only where the numbers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cgankd.report.headline import headline

Results = Callable[..., dict[str, Any]]


def with_interval(found: dict[str, Any], mean: float, low: float | None, high: float | None) -> dict[str, Any]:
    """The results with cGAN-KD's difference replaced."""
    row = next(row for row in found["rows"] if row["method"] == "cgan")
    row["difference"] |= {"mean": mean, "low": low, "high": high}
    return found


def test_a_gain(make_results: Results) -> None:
    made = headline(with_interval(make_results("classification"), 0.8, 0.3, 1.3))
    assert made.finding == "gain"
    assert made.sentence.startswith("cGAN-KD 8")
    assert "for the student trained as many steps without transfer" in made.sentence
    assert made.sentence.endswith("+0.80 points, 95% interval [+0.30, +1.30].")


def test_an_interval_with_zero_is_no_gain(make_results: Results) -> None:
    made = headline(with_interval(make_results("classification"), 0.8, -0.1, 1.7))
    assert made.finding == "no gain"
    assert made.sentence.startswith("No gain shown:")
    assert "includes zero" in made.sentence


def test_worse_is_no_gain(make_results: Results) -> None:
    made = headline(with_interval(make_results("classification"), -0.8, -1.3, -0.3))
    assert made.finding == "no gain"
    assert made.sentence.startswith("No gain but a loss:")


def test_regression_gains_downwards(make_results: Results) -> None:
    made = headline(with_interval(make_results("regression"), -0.8, -1.3, -0.3))
    assert made.finding == "gain"
    assert "(lower is better): −0.80 degrees, 95% interval [−1.30, −0.30]" in made.sentence
    assert headline(with_interval(make_results("regression"), 0.8, 0.3, 1.3)).finding == "no gain"


def test_one_seed_is_no_evidence(make_results: Results) -> None:
    made = headline(make_results("classification", seeds=1))
    assert made.finding == "open"
    assert "One seed: no interval; a demonstration, not evidence." in made.sentence
    assert "±" not in made.sentence


def test_a_demonstration_says_so(make_results: Results) -> None:
    assert "demonstration" in headline(make_results("classification", demonstration=True)).sentence
    assert "demonstration" not in headline(make_results("classification")).sentence


def test_without_control_nothing_is_claimed(make_results: Results) -> None:
    found = make_results("classification")
    found["rows"] = [row | {"difference": None} for row in found["rows"] if row["method"] != "nokd_longer"]
    made = headline(found)
    assert made.finding == "open"
    assert "so whether this is a gain is unknown" in made.sentence


def test_the_row_is_chosen_by_name_not_by_score(make_results: Results) -> None:
    found = make_results("classification")  # cGAN-KD + KD has the highest mean
    assert "cGAN-KD + KD" not in headline(found).sentence


def test_without_generated_images_there_is_nothing_to_compare(make_results: Results) -> None:
    found = make_results("classification")
    found["rows"] = [row for row in found["rows"] if not row["fake_images"]]
    assert "nothing to compare" in headline(found).sentence
