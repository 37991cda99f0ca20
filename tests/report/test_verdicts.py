"""The sentences after the table: which rows are better or worse than the control, by how much."""

from __future__ import annotations

from typing import Any

from cgankd.metrics.statistics import paired_difference
from cgankd.report.verdicts import verdicts


def row(method: str, mean: float, change: float | None, half: float | None = 0.2) -> dict[str, Any]:
    difference = None
    if change is not None:
        ends = {"low": None, "high": None} if half is None else {"low": change - half, "high": change + half}
        difference = {"to": "nokd_longer", "mean": change, **ends}
    values = [mean] if half is None else [mean - 0.1, mean, mean + 0.1]
    return {
        "method": method, "mean": mean, "std": 0.1, "values": values, "difference": difference,
        "fake_images": 100 if method == "cgan" else 0,
    }  # fmt: skip


def results(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    control = row("nokd_longer", 90.0, None, half=None if len(rows[0]["values"]) == 1 else 0.2)
    return {
        "metric": "accuracy", "unit": "%", "higher_is_better": True, "control": "nokd_longer", "rows": [control, *rows],
        **changes,
    }  # fmt: skip


def test_each_verdict_is_one_sentence() -> None:
    rows = [row("cgan", 92.0, 2.0), row("kd", 90.5, 0.5), row("fm", 90.1, 0.1), row("sp", 89.0, -1.0), row("at", 90, 0)]
    assert verdicts(results(*rows))[1:] == [
        "Better than the control (nokd_longer): cgan by 2.0 points and kd by 0.5 points.",
        "Worse than the control (nokd_longer): sp by 1.0 points.",
        "No difference from the control (nokd_longer) is shown for fm and at: the 95% interval includes zero.",
    ]


def test_a_smaller_error_is_better() -> None:
    sentences = verdicts(results(row("cgan", 4.0, -2.0), unit="degrees", metric="mae", higher_is_better=False))
    assert sentences[1:] == ["Better than the control (nokd_longer): cgan by 2.00 degrees."]


def test_one_seed_shows_nothing_but_the_main_numbers() -> None:
    sentences = verdicts(results(row("cgan", 92.0, 2.0, half=None)))
    assert len(sentences) == 1
    assert "With one seed there is no interval, so the difference may be chance." in sentences[0]


def test_a_difference_that_is_equal_for_all_seeds_is_not_shown_to_be_one() -> None:
    level = row("kd", 92.0, 2.0) | {"difference": paired_difference([91.0, 93.0], [89.0, 91.0])}
    assert verdicts(results(row("fm", 93.0, 3.0), level))[1:] == [
        "Better than the control (nokd_longer): fm by 3.0 points.",
        "No interval for kd: the difference from the control (nokd_longer) is the same for all seeds.",
    ]
