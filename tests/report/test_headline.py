"""The headline: the best row with generated images against the best without, both chosen on the validation split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgankd.metrics.statistics import spread
from cgankd.report.headline import headline

Results = Callable[..., dict[str, Any]]
T_975 = 4.302652729911275  # Student's t for three seeds


def scored(results: dict[str, Any], test: dict[str, list[float]], val: dict[str, float | None]) -> dict[str, Any]:
    """The results with the rows in ``test`` alone, with these scores on the test and validation splits."""
    rows = [row | spread(test[row["method"]]) for row in results["rows"] if row["method"] in test]
    for row in rows:
        if (mean := val.get(row["method"])) is not None:
            row["val"] = {"values": [mean], "mean": mean, "std": None}
    return results | {"rows": rows}


def test_the_rows_are_chosen_on_the_validation_split(make_results: Results) -> None:
    test = {
        "nokd_longer": [80.0, 80.0, 80.0],
        "kd": [84.0, 85.0, 86.0],
        "cgan": [99.0, 99.0, 99.0],
        "cgan_kd": [86.0, 87.2, 87.4],
    }
    val = {"nokd_longer": 70.0, "kd": 75.0, "cgan": 71.0, "cgan_kd": 76.0}  # cgan is best on the test split alone
    made = headline(scored(make_results("classification"), test, val))
    # differences 2, 2.2, 1.4: mean 1.8667, standard deviation 0.4163
    half = T_975 * 0.416333 / 3**0.5
    assert made.sentence == (
        "Of the best rows by validation: with generated images (cGAN-KD + KD) the student's "
        "accuracy on the test split is 86.9 ± 0.8 %; without (plain "
        f"KD) it is 85.0 ± 1.0 %. The difference is 1.9 points, 95% interval {1.86667 - half:.1f} to "
        f"{1.86667 + half:.1f}, so generated images help here."
    )
    assert made.finding == "gain"


@pytest.mark.parametrize("generates", [True, False])
def test_the_student_that_was_trained_again_ends_every_headline(make_results: Results, generates: bool) -> None:
    results = make_results("classification")
    if not generates:
        results["rows"] = [row | {"fake_images": 0} for row in results["rows"] if not row.get("fake_images")]
        results.pop("generator", None)
    first = headline(results).sentence
    row = results["rows"][0]
    results["refit"] = {**row, "real_images": 1100, "mean": 91.25, "seed": 0, "ships": True}
    assert headline(results).sentence == (
        f"{first} What ships is row {row['method']} trained again, with the validation images among its 1,100 labelled "
        "ones: 91.25 % on the test split."
    )
    results["refit"]["ships"] = False
    assert headline(results).sentence == first


@pytest.mark.parametrize(("best", "unlabelled"), [("kd", ", 900 without labels"), ("nokd_longer", "")])
def test_where_there_are_images_without_labels_the_headline_says_whether_the_student_learnt_from_them(
    make_results: Results, best: str, unlabelled: str
) -> None:
    results = make_results("classification")
    results["best"] = {"row": best, "seed": 0}
    rows = {row["method"]: row for row in results["rows"]}
    for row in rows.values():
        row |= {"real_images": 100, "fake_images": 0}
    first = headline(results).sentence
    rows["kd"] |= {"real_images": 1000, "pseudo_labelled": 900}
    learnt = f"100 labelled images{unlabelled.replace(',', ' and')}"
    assert headline(results).sentence == f"{first} The student that ships learnt from {learnt}."


def test_of_equal_validation_scores_the_lowest_loss_decides(make_results: Results) -> None:
    test = {name: [80.0, 81.0, 82.0] for name in ("nokd_longer", "kd", "cgan", "cgan_kd")}
    results = scored(make_results("classification"), test, dict.fromkeys(test, 75.0))
    losses = {"nokd_longer": 0.3, "kd": 0.2, "cgan": 0.3, "cgan_kd": 0.2}
    for row in results["rows"]:
        row["val"]["losses"] = [losses[row["method"]]]
    assert "(cGAN-KD + KD)" in headline(results).sentence
    assert "(plain KD)" in headline(results).sentence


@pytest.mark.parametrize(
    ("gains", "finding", "ending"),
    [
        ([1.0, 1.1, 1.2], "gain", "so generated images help here."),
        ([-1.0, 1.0, 2.0], "no gain", "so it may be chance."),
        ([-1.0, -1.1, -1.2], "no gain", "so generated images make the student worse here."),
        ([1.0], "open", "With one seed there is no interval, so the difference may be chance."),
        (
            [1.0, 1.0],
            "open",
            "Where it is the same for all seeds, there is no interval, so the difference may be chance.",
        ),
    ],
)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_what_the_difference_means(
    task: str, gains: list[float], finding: str, ending: str, make_results: Results
) -> None:
    sign = 1 if task == "classification" else -1
    test = {"nokd_longer": [50.0] * len(gains), "cgan": [50.0 + sign * gain for gain in gains]}
    made = headline(scored(make_results(task), test, {"nokd_longer": 50.0, "cgan": 50.0}))
    assert made.finding == finding
    assert made.sentence.endswith(ending)
    assert ("(lower is better)" in made.sentence) is (task == "regression")


def test_a_lower_error_is_a_negative_difference(make_results: Results) -> None:
    test = {"nokd_longer": [6.0, 6.1, 6.2], "cgan": [5.0, 5.2, 5.1]}
    val = {"nokd_longer": 6.0, "cgan": 5.0}
    made = headline(scored(make_results("regression"), test, val))
    assert "MAE on the test split is 5.10 ± 0.10 degrees; without (student alone, equal steps) it is 6.10" in (
        made.sentence
    )
    assert "The difference is −1.00 degrees, 95% interval −1.25 to −0.75" in made.sentence


def test_rows_without_a_validation_score_are_named_and_not_compared(make_results: Results) -> None:
    test = {"nokd_longer": [80.0], "kd": [90.0], "cgan": [85.0]}
    made = headline(scored(make_results("classification"), test, {"nokd_longer": 80.0, "cgan": 85.0}))
    assert "without (student alone, equal steps) it is 80.0 %" in made.sentence
    assert made.sentence.endswith("Without a validation score, so not compared: kd.")


def test_without_any_validation_score_cgan_kd_is_compared_with_the_control(make_results: Results) -> None:
    test = {"nokd_longer": [80.0], "kd": [90.0], "cgan": [85.0], "cgan_kd": [95.0]}
    sentence = headline(scored(make_results("classification"), test, {})).sentence
    assert "The difference is 5.0 points." in sentence
    assert "The results have no validation scores, so the best rows can't be chosen fairly" in sentence


def test_a_demonstration_says_so(make_results: Results) -> None:
    assert "demonstration" in headline(make_results("classification", demonstration=True)).sentence
    assert "demonstration" not in headline(make_results("classification")).sentence


@pytest.mark.parametrize(
    ("kept", "missing"), [("cgan", "without generated images"), ("nokd_longer", "on generated images")]
)
def test_one_side_alone_is_nothing_to_compare(kept: str, missing: str, make_results: Results) -> None:
    made = headline(scored(make_results("classification"), {kept: [80.0]}, {kept: 80.0}))
    assert made.finding == "open"
    assert f"no row to compare that was trained {missing}" in made.sentence


def test_the_row_of_the_autopilot_stands_beside_the_control() -> None:
    rows = [
        {"method": "nokd_longer", "mean": 80.0, "std": None, "values": [80.0], "fake_images": 0},
        {"method": "cgan+fm~mixup", "mean": 85.0, "std": None, "values": [85.0], "fake_images": 9},
    ]
    results = {"rows": rows, "control": "nokd_longer", "autopilot": {"chosen": "cgan+fm~mixup"}, "metric": "accuracy",
               "unit": "%", "higher_is_better": True, "teacher": {"values": [90.0]}, "seeds": [0]}  # fmt: skip
    assert headline(results).sentence == (
        "The row chosen by validation (cGAN-KD + fm~mixup): the student's accuracy on the test split is 85.0 %; that "
        "of the student alone, with equal steps, is 80.0 %."
    )
    # Its trials do not have the control, which may still be better on the validation split.
    for row, val in zip(rows, (91.0, 90.0), strict=True):
        row["val"] = {"mean": val}
    assert "so it ships" not in headline({**results, "best": {"row": "cgan+fm~mixup"}}).sentence
    assert headline({**results, "best": {"row": "nokd_longer"}}).sentence.endswith(
        "is 80.0 %. On the validation split the latter is better (91.0 % against 90.0 %), so it ships."
    )
    rows[1]["val"] = {"mean": 91.0}
    assert headline({**results, "best": {"row": "nokd_longer"}}).sentence.endswith(
        "On the validation split both have 91.0 %, the latter with a lower loss, so it ships."
    )
    rows[1]["val"] = {"mean": 92.0}
    assert headline({**results, "best": {"row": "nokd_longer"}}).sentence.endswith(
        "On the validation split the latter has 91.0 % against 92.0 %, which may be chance, and a lower loss, so it "
        "ships."
    )


def test_the_row_that_ships_is_compared(make_results: Results) -> None:
    """Within a half, another row may be better and clearly so, where the half does not have the best of all rows."""
    test = {"nokd_longer": [80.0], "cgan": [81.0], "cgan_kd": [82.0]}
    results = scored(make_results("classification"), test, {"nokd_longer": 93.0, "cgan": 90.5, "cgan_kd": 89.5})
    for row, loss in zip(results["rows"], (0.3, 0.2, 0.1), strict=True):
        row["val"]["losses"] = [loss]
    results |= {"counts": {"val": 100}, "best": {"row": "cgan", "seed": 0}}
    assert "with generated images (cGAN-KD) the student's" in headline(results).sentence


@pytest.mark.parametrize(("images", "best"), [(100, "student alone"), (9000, "plain KD"), (None, "plain KD")])
def test_rows_that_chance_explains_are_ordered_by_their_loss(
    make_results: Results, images: int | None, best: str
) -> None:
    scores = {"nokd_longer": [80.0], "kd": [81.0], "cgan": [82.0]}
    results = scored(make_results("classification"), scores, {"nokd_longer": 88.0, "kd": 90.0, "cgan": 60.0})
    for row, loss in zip(results["rows"], (0.1, 0.2, 0.3), strict=True):
        row["val"]["losses"] = [loss]
    results["counts"] = {"val": images} if images else {}
    assert f"without ({best}" in headline(results).sentence


def without_fakes(make_results: Results, task: str = "classification", best: str = "kd", **changes: Any) -> Any:
    """The results of a run that has no generated images."""
    results = make_results(task, best={"row": best, "seed": 0}, **changes)
    results["rows"] = [row for row in results["rows"] if not row["fake_images"]]
    del results["generator"], results["ratio"]
    results["teacher"] |= {"test": 91.5, "parameters": 780420}
    return results


def test_without_generated_images_the_student_that_ships_is_the_result(make_results: Results, tmp_path: Path) -> None:
    results = scored(without_fakes(make_results), {"nokd_longer": [80.0], "kd": [82.5]}, {})
    facts = (
        "Your student is row kd (plain KD), chosen by validation. Its accuracy on the test split is 82.5 %; the "
        "control's is 80.0 % and the teacher's is 91.5 %. It has 78,042 parameters; the teacher has 10.0 times as many."
    )
    made = headline(results)
    assert (made.finding, made.sentence) == ("open", facts)
    assert headline(results, tmp_path).sentence == f"{facts} cgankd export writes it to a file."
    (tmp_path / "student.onnx").write_bytes(bytes(295_200))
    assert headline(results, tmp_path).sentence == f"{facts} Its file is student.onnx in the run's folder (295 kB)."


@pytest.mark.parametrize(
    ("values", "finding", "ending"),
    [
        ([82.0, 82.1, 82.2], "gain", "The difference to the control is 2.1 points, 95% interval 1.9 to 2.3."),
        ([78.0, 80.0, 83.0], "no gain", "95% interval −5.9 to 6.6, so it may be chance."),
    ],
)
def test_seeds_say_whether_the_student_is_better_than_the_control(
    values: list[float], finding: str, ending: str, make_results: Results
) -> None:
    results = scored(without_fakes(make_results), {"nokd_longer": [80.0] * 3, "kd": values}, {})
    made = headline(results)
    assert made.finding == finding
    assert ending in made.sentence
    assert "on the test split (mean of 3 seeds) is" in made.sentence


def test_a_control_that_ships_is_called_so(make_results: Results) -> None:
    results = scored(without_fakes(make_results, best="nokd_longer"), {"nokd_longer": [80.0], "kd": [70.0]}, {})
    assert headline(results).sentence.startswith(
        "Your student is row nokd_longer (student alone, equal steps), the control, because validation finds no "
        "other row better. Its accuracy on the test split is 80.0 %; the teacher's is 91.5 %."
    )
