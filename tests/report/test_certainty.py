"""The sentence on how well few test images tell the score of the student that ships."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from cgankd.metrics.statistics import wilson
from cgankd.report import table


def found(values: list[float], images: int | None, **changes: Any) -> dict[str, Any]:
    """Results of a run whose row kd ships: its score in each seed, on so many test images."""
    row = {"method": "kd", "values": values, "mean": sum(values) / len(values), "std": None}
    return {
        "metric": "accuracy", "unit": "%", "higher_is_better": True, "rows": [row],
        "counts": {"test": images}, "seeds": list(range(len(values))), "best": {"row": "kd", "seed": len(values) - 1},
    } | changes  # fmt: skip


def said(results: dict[str, Any]) -> list[str]:
    return [note for note in table.footnotes(results) if "only known" in note]


@pytest.mark.parametrize(("right", "images"), [(0, 7), (7, 7), (50, 50), (31, 40), (1, 3), (9_990, 10_000)])
def test_the_interval_of_a_share_is_scipys(right: int, images: int) -> None:
    expected = stats.binomtest(right, images).proportion_ci(method="wilson")
    assert wilson(right / images, images) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(
    ("accuracy", "images", "sentence"),
    [
        (100.0, 50, "With 50 test images, the test accuracy of kd (100.0 %) is only known to be between 93 and 100 % "
                    "(95% interval)."),
        (50.0, 2_000, "With 2,000 test images, the test accuracy of kd (50.0 %) is only known to be between 48 and "
                      "52 % (95% interval)."),
        (50.0, 2_400, None),  # 1.96 * 0.5 / sqrt(2,400) is 2.0003 points, and Wilson's interval a little narrower
        (100.0, 100, None),  # 96.3 to 100
        (100.0, None, None),  # of an older version
    ],
)  # fmt: skip
def test_an_accuracy_on_few_images_has_an_interval(accuracy: float, images: int | None, sentence: str | None) -> None:
    assert said(found([accuracy], images)) == ([sentence] if sentence else [])


def test_of_several_seeds_it_is_that_of_the_student_that_ships() -> None:
    (sentence,) = said(found([80.0, 90.0], 100))  # the mean is 85
    assert "accuracy of kd, seed 1 (90.0 %) is only known to be between 83 and 94 %" in sentence
    again = {"method": "kd", "mean": 94.0, "ships": True, "seed": 1, "real_images": 30, "pseudo_labelled": 0}
    (sentence,) = said(found([80.0, 90.0], 100, refit=again))
    assert "accuracy of kd, all labels (94.0 %) is only known to be between 88 and 97 %" in sentence


@pytest.mark.parametrize(
    ("error", "sentence"), [(0.45, "between 3.12 degrees and 4.88 degrees"), (0.39, None), (None, None)]
)
def test_a_mean_error_has_an_interval_where_its_standard_error_is_large(
    error: float | None, sentence: str | None
) -> None:
    best = {"row": "kd", "seed": 0, "test_standard_error": error}
    notes = said(found([4.0], 40, metric="mae", unit="degrees", higher_is_better=False, best=best))
    assert len(notes) == (sentence is not None)
    assert all(f"the test MAE of kd (4.00 degrees) is only known to be {sentence}" in note for note in notes)
