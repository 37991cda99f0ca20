"""Rows, paired differences and what is said about them: against scipy and numpy."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cgankd.config.recipe import Recipe
from cgankd.core.run_folder import HeldFolder
from cgankd.core.store import Artifact
from cgankd.metrics import statistics
from cgankd.pipeline import results
from cgankd.pipeline.comparisons import CONTROL
from cgankd.pipeline.gathering import best_by_validation
from cgankd.pipeline.warnings import balanced_accuracy, warnings
from cgankd.tasks import Classification, Regression


def summary(test: float, bins: list[float | None]) -> dict[str, Any]:
    best = {"step": 8, "val": test + 1.0, "test": test + 0.5, "test_per_bin": bins}
    return {"network": "cnn8", "parameters": 7, "val": test - 1.0, "test": test, "test_per_bin": bins, "best": best}


def made(method: str, values: list[float], steps: int = 10) -> dict[str, Any]:
    return results.table_row(method, [summary(v, [v, None]) for v in values], {"steps": steps})


def test_the_latency_of_a_network_is_the_least_of_all_that_were_measured() -> None:
    measured = [("teacher", None), ("cnn8", 4.16), ("cnn8", 0.7), ("cnn8", 0.9)]
    networks = [Artifact(Path(), "key", 0.0, {"network": name, "latency_ms": ms}) for name, ms in measured]
    assert results.latencies(networks) == {"teacher": None, "cnn8": 0.7}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_interval_equals_scipys_paired_t_test(count: int) -> None:
    rng = np.random.default_rng(count)
    values, control = rng.normal(90, 2, count), rng.normal(88, 2, count)
    found = statistics.paired_difference(values.tolist(), control.tolist())
    interval = stats.ttest_rel(values, control).confidence_interval(0.95)
    assert found["mean"] == pytest.approx((values - control).mean())
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["values"] == pytest.approx(values - control)


def test_one_seed_has_no_interval() -> None:
    assert statistics.paired_difference([3.0], [1.0]) == {"values": [2.0], "mean": 2.0, "low": None, "high": None}


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_equal_differences_have_no_interval(gain: float) -> None:
    found = statistics.paired_difference([2.0 + gain, 3.0 + gain], [2.0, 3.0])
    assert found == {"values": [gain, gain], "mean": gain, "low": None, "high": None}


def test_seeds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError):
        statistics.paired_difference([1.0, 2.0], [1.0])


def test_row_means_and_spread() -> None:
    row = results.table_row("kd", [summary(1.0, [1.0, 5.0]), summary(4.0, [3.0, None])], {"steps": 5})
    assert (row["mean"], row["std"]) == (2.5, pytest.approx(np.std([1.0, 4.0], ddof=1)))
    assert row["per_bin"] == [2.0, None]
    assert (row["method"], row["network"], row["parameters"], row["steps"]) == ("kd", "cnn8", 7, 5)
    assert made("kd", [1.0])["std"] is None


def test_a_teachers_scores_are_means_over_its_seeds_as_those_of_a_row() -> None:
    setting = SimpleNamespace(trained_on="pool")
    run: Any = SimpleNamespace(recipe=SimpleNamespace(teacher=setting, metrics=SimpleNamespace(robustness=None)))
    of_seeds = [{**own, "images": 9} for own in (summary(90.0, [80.0, None]), summary(70.0, [50.0, None]))]
    found = results._teacher(run, [], of_seeds)
    assert (found["test"], found["val"], found["values"]) == (80.0, 79.0, [90.0, 70.0])
    assert found["per_bin"] == [65.0, None]
    assert results._teacher(run, [], of_seeds[:1])["test"] == 90.0
    silent = [{**own, "test": None, "test_per_bin": None} for own in of_seeds]
    assert [results._teacher(run, [], silent)[name] for name in ("test", "values", "per_bin")] == [None, [], None]


def test_a_row_has_the_scores_of_the_weights_that_ship_and_those_of_both_sets() -> None:
    per_seed = [summary(1.0, [1.0]), summary(4.0, [3.0])]
    last, best = (results.table_row("kd", per_seed, {"steps": 5}, ships) for ships in ("last", "best"))
    assert (last["values"], last["val"]["values"]) == ([1.0, 4.0], [0.0, 3.0])
    assert (best["values"], best["val"]["values"]) == ([1.5, 4.5], [2.0, 5.0])
    assert (last["weights"].pop("ships"), best["weights"].pop("ships")) == ("last", "best")
    assert last["weights"] == best["weights"]
    assert best["weights"]["last"]["test"]["mean"] == 2.5
    assert best["weights"]["best"]["test"]["mean"] == 3.0
    assert best["weights"]["best_steps"] == [8, 8]


def test_only_rows_of_the_controls_length_are_compared() -> None:
    rows = [made("nokd", [1.0], 5), made(CONTROL, [2.0]), made("kd", [5.0])]
    results.compare(rows)
    assert [row["difference"] and row["difference"]["mean"] for row in rows] == [None, None, 3.0]
    assert rows[2]["difference"]["to"] == CONTROL


def test_the_best_row_and_its_best_seed_are_chosen_on_the_validation_split(tmp_path: Path) -> None:
    def students(val: list[float], test: list[float]) -> list[Artifact]:
        scored = zip(val, test, strict=True)
        return [Artifact(tmp_path, "key", 0.0, {"val": one, "test": other}) for one, other in scored]

    recipe = Recipe(seeds=(3, 7))
    splits = SimpleNamespace(val=range(10))
    task = Classification(("a", "b"))
    run: Any = SimpleNamespace(recipe=recipe, task=task, rows=("kd", "cgan", "dkd"), splits=splits)
    trained = {
        "kd": students([4.0, 4.0], [5.0, 5.0]),
        "cgan": students([3.0, 7.0], [4.0, 8.0]),
        "dkd": students([1.0, 1.0], [9.0, 9.0]),  # best on the test split alone
    }
    assert best_by_validation(run, trained) == ("cgan", 7)
    run.task = Regression(0.0, 1.0)
    assert best_by_validation(run, trained) == ("dkd", 3)


def test_without_a_control_nothing_is_compared() -> None:
    rows = [made("nokd", [1.0]), made("kd", [5.0])]
    results.compare(rows)
    assert [row["difference"] for row in rows] == [None, None]


def found(teacher: float, control: float, higher: bool, **changes: Any) -> dict[str, Any]:
    return {
        "higher_is_better": higher,
        "demonstration": False,
        "seeds": [0, 1, 2],
        "rows": [made(CONTROL, [control] * 3)],
        "teacher": {"values": [teacher]},
        "unit": "%",
    } | changes


@pytest.mark.parametrize(
    ("teacher", "control", "higher", "warned"),
    [(90.0, 80.0, True, False), (80.0, 80.0, True, True), (70.0, 80.0, True, True),
     (2.0, 3.0, False, False), (3.0, 2.0, False, True)],
)  # fmt: skip
def test_a_teacher_no_better_than_the_control_is_said(
    teacher: float, control: float, higher: bool, warned: bool
) -> None:
    said = warnings(found(teacher, control, higher))
    assert any("nothing to transfer" in sentence for sentence in said) == warned
    assert len(said) == warned


def test_large_scores_are_said_without_an_exponent() -> None:
    (said,) = warnings(found(23456.7, 12345.6, False, unit="dollars"))
    assert said.startswith("The teacher (23,457 dollars) is no better")


@pytest.mark.parametrize(
    ("trained_on", "origin", "labelled", "warned"),
    [
        ("pool", "pool", 40, True),
        ("train", "pool", 40, False),
        ("pool", "pool", 0, False),
        ("pool", "elsewhere", 40, False),
    ],
)
def test_a_teacher_that_has_seen_the_truth_is_said(trained_on: str, origin: str, labelled: int, warned: bool) -> None:
    rows = [made(CONTROL, [8.0]), made("pseudo+fm", [9.0]) | {"pseudo_labelled": labelled}]
    teacher = {"values": [9.5], "trained_on": trained_on}
    said = warnings(found(9.5, 8.0, True, rows=rows) | {"teacher": teacher, "unlabelled_from": origin})
    assert [("labels for pseudo+fm, with" in sentence) for sentence in said] == [True] * warned


@pytest.mark.parametrize(
    ("method", "val", "share", "sentence"),
    [
        (
            "at",
            79.0,
            0.01,
            "On the validation split row at (79 %) is worse than row nokd_longer (80 %). At the end only 1.0%",
        ),
        ("cgan+at", 81.0, 0.01, "row cgan+at (81 %) is worse than row cgan (82 %)"),
        ("cgan+kd+crd", 81.0, 0.01, "A smaller student.method_settings.crd.weight may help"),
        ("at", 81.0, 0.01, None),  # it helps
        ("at", 79.0, 0.2, None),  # the labels count
        ("at", 79.0, None, None),  # they are all of the loss
        ("kd", 79.0, 0.01, None),  # has no weight of its own
    ],
)
def test_a_smaller_weight_is_advised_by_validation_alone(
    method: str, val: float, share: float | None, sentence: str | None
) -> None:
    rows = [made(CONTROL, [80.0]), made("cgan", [82.0]), made(method, [val]) | {"label_share": share}]
    for row in rows:
        row |= {"val": {"mean": row["mean"]}, "mean": 160.0 - row["mean"]}  # the test split says the opposite
    (*sentences,) = warnings(found(200.0, 80.0, True, rows=rows))
    assert len(sentences) == (sentence is not None)
    assert sentence is None or sentence in sentences[0]


def test_few_seeds_demonstrations_and_missing_images_are_said() -> None:
    assert "Fewer than three seeds" in warnings(found(9.0, 8.0, True, seeds=[0, 1]))[0]
    assert "One seed: no spread" in warnings(found(9.0, 8.0, True, seeds=[0]))[0]
    assert "demonstration" in warnings(found(9.0, 8.0, True, seeds=[0], demonstration=True))[0]
    short = {"kept": 70, "requested": 100}
    assert warnings(found(9.0, 8.0, True, synthesis=short))[0].startswith("30 of 100 images are missing")
    assert "max_draws" in warnings(found(9.0, 8.0, True, synthesis=short))[0]
    ready = {"synthesis": short, "generator": {"ready_images": True}}
    assert "generator.source has no more images of some labels" in warnings(found(9.0, 8.0, True, **ready))[0]
    ready = {"synthesis": {**short, "generated": 100}, "generator": {"ready_images": 300}}
    assert "only 100 of the 300 ready images were looked at" in warnings(found(9.0, 8.0, True, **ready))[0]
    ready = {"synthesis": {**short, "generated": 300}, "generator": {"ready_images": 300}}
    assert "looked at" not in warnings(found(9.0, 8.0, True, **ready))[0]


def test_labels_without_any_image_are_named() -> None:
    per_label = [{"label": name, "requested": 10, "kept": kept} for name, kept in (("a", 0), ("b", 9), ("c", 0))]
    synthesis = {"kept": 9, "requested": 30, "per_label": per_label}
    said = warnings(found(9.0, 8.0, True, synthesis=synthesis))
    assert said[1].startswith("No generated image was kept for a, c: the generator does not follow these labels")


@pytest.mark.parametrize(
    ("higher", "test", "useless"), [(True, 52.0, True), (True, 60.0, False), (False, 46.0, True), (False, 44.0, False)]
)
def test_a_student_that_is_hardly_better_than_one_answer_is_told(higher: bool, test: float, useless: bool) -> None:
    facts = {"best": {"test": test}, "constant": {"label": "7", "test": 50.0}}
    said = " ".join(warnings(found(90.0 if higher else 5.0, 8.0, higher, **facts)))
    assert ("is not clearly better than always answering 7 (50 %)" in said) is useless


@pytest.mark.parametrize(
    ("metric", "test", "constant", "useless"),
    [
        ("accuracy", 12.5, 10.0, True),  # 2.5 points; two standard errors of 40 images are 10.5
        ("accuracy", 22.0, 10.0, True),  # 12 points; 13.1
        ("accuracy", 27.5, 10.0, False),  # 17.5 points; 14.1
        ("accuracy", 98.0, 90.0, False),  # 8 points; 4.4
        ("accuracy", 5.0, 10.0, True),
        ("mae", 3.7, 4.0, True),  # above 90 % of 4
        ("mae", 3.5, 4.0, False),
    ],
)
def test_a_student_that_ships_has_to_beat_one_answer_clearly(
    metric: str, test: float, constant: float, useless: bool
) -> None:
    facts = {"best": {"test": test}, "constant": {"label": "cat", "test": constant}, "counts": {"test": 40}}
    higher, unit = metric == "accuracy", "%" if metric == "accuracy" else "years"
    said = warnings(found(99.0 if higher else 0.1, 50.0, higher, metric=metric, unit=unit, **facts))
    expected = (
        f"The student that ships ({test:.4g} {unit} on 40 test images) is not clearly better than always answering cat "
        f"({constant:.4g} {unit}). What may help: more labelled images, a teacher that starts from pretrained weights "
        "(teacher.start), and mirrored views where a mirror image has the same label (student.fit.augment.flip=true)."
    )
    assert (expected in said) is useless
    assert len(said) == 1 + useless  # the other warning: few test images


def test_pretrained_weights_are_no_advice_for_a_teacher_from_elsewhere() -> None:
    facts = {"best": {"test": 52.0}, "constant": {"label": "7", "test": 50.0}}
    (said,) = warnings(found(90.0, 8.0, True, **facts) | {"teacher": {"values": [90.0], "trained_on": "elsewhere"}})
    assert said.endswith("more labelled images, and mirrored views where a mirror image has the same label "
                         "(student.fit.augment.flip=true).")  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        # shares with two right and two wrong answers more: 22 of 44, 42 of 44
        ({"metric": "accuracy", "counts": {"test": 40}, "best": {"test": 50.0}},
         "The test split has only 40 images: one image is 2.5 points of accuracy, and a difference below about 16 "
         "points (two standard errors) may be chance."),
        ({"metric": "accuracy", "counts": {"test": 40}, "best": {"test": 100.0}},
         "The test split has only 40 images: one image is 2.5 points of accuracy, and a difference below about 7 "
         "points (two standard errors) may be chance."),
        ({"metric": "accuracy", "counts": {"test": 96}, "best": {"test": 50.0}},
         "The test split has only 96 images: one image is 1 point of accuracy, and a difference below about 10 "
         "points (two standard errors) may be chance."),
        ({"metric": "mae", "counts": {"test": 100}, "best": {"test": 3.0}},
         "The test split has only 100 images, so a difference below about a seventh of the error may be chance."),
        ({"metric": "accuracy", "counts": {"test": 200}, "best": {"test": 50.0}}, None),
    ],
)  # fmt: skip
def test_few_test_images_are_said(facts: dict[str, Any], sentence: str | None) -> None:
    higher = facts["metric"] == "accuracy"
    assert warnings(found(99.0 if higher else 0.1, 8.0, higher, **facts)) == ([sentence] if sentence else [])


def uneven(per_bin: list[float | None], images: list[int], mean: float = 80.0, **changes: Any) -> dict[str, Any]:
    """A run whose shipped student is right in these percentages of each class's test images."""
    student = {**made("kd", [mean] * 3), "per_bin": per_bin}
    facts = {"metric": "accuracy", "bins": ["dog", "cat", "fox", "owl", "emu"], "test_images_per_bin": images}
    best = {"row": "kd", "test": mean, "val": mean}
    return found(90.0, 80.0, True, rows=[student], best=best, **{**facts, **changes})


def test_a_class_that_fails_is_named_with_its_numbers() -> None:
    sentence, rare = warnings(uneven([95.0, 80.0, 20.0, 0.0, None], [24, 12, 5, 3, 0]))
    assert rare == "Few test images of owl (3): the accuracy of this class is hardly known."
    assert "(80 %) hides classes that fail (means over seeds): owl is right in 0 of 3 test images; fox" in sentence
    assert "fox is right in 1 of 5 test images. More images" in sentence
    assert "dog" not in sentence
    again = {**made("kd", [80.0]), "per_bin": [95.0, 80.0, 20.0, 0.0, None], "ships": True}
    sentence, _ = warnings(uneven([95.0] * 5, [24, 12, 5, 3, 0], refit=again))
    assert "(80 %) hides classes that fail: owl is right in 0 of 3 test images" in sentence  # one student, no mean
    (sentence,) = warnings(uneven([10.0, 10.0, 20.0, 30.0, 90.0], [5] * 5))
    assert "fox is right in 1 of 5 test images; 1 more class is right less than half as often." in sentence


@pytest.mark.parametrize(
    "results",
    [uneven([90.0, 80.0, 40.0, None, None], [24, 12, 5, 0, 0]),  # half as often, not less
     uneven([90.0, 80.0, 0.0, None, None], [24, 12, 2, 0, 0]),  # too few images to say anything
     uneven([1.0, 2.0, 0.1, None, None], [24, 12, 5, 0, 0], metric="mae"),
     {**uneven([], []), "best": None},
     uneven([90.0, 0.0, None, None, None], [])],
)  # fmt: skip
def test_nothing_is_said_where_no_class_fails(results: dict[str, Any]) -> None:
    assert not any("classes that fail" in sentence for sentence in warnings(results))


@pytest.mark.parametrize(
    ("images", "facts", "balanced"),
    [
        ([24, 12, 6, 0, 0], {}, pytest.approx(200 / 3)),
        ([10, 9, 8, 0, 0], {}, None),
        ([24, 12, 6, 0, 0], {"metric": "mae"}, None),
    ],
)
def test_the_balanced_accuracy_is_said_where_test_classes_differ_in_size(
    images: list[int], facts: dict[str, Any], balanced: object
) -> None:
    assert balanced_accuracy(uneven([90.0, 70.0, 40.0, None, None], images, **facts)) == balanced


def test_nothing_is_said_of_a_teacher_without_a_score() -> None:
    found = {
        "higher_is_better": True, "unit": "%", "demonstration": False, "seeds": [0, 1, 2],
        "rows": [{"method": CONTROL, "mean": 50.0}], "teacher": {"values": []},
    }  # fmt: skip
    assert warnings(found) == []
    found["teacher"] = {"values": [40.0, 44.0, 42.0]}
    assert ["The teacher (42 %) is no better" in said for said in warnings(found)] == [True]


def test_what_is_level_is_no_gain() -> None:
    alone, made = [89.5, 89.1, 88.35], [89.4, 88.45, 89.1]  # -.1, -.65 and .75, whose sum is 1e-14 in floats
    found = statistics.paired_difference(made, alone)
    assert found["mean"] == 0.0
    assert statistics.paired_difference([0.3], [0.1 + 0.2])["values"] == [0.0]


def test_files_of_another_student_go_and_those_of_this_one_stay(tmp_path: Path) -> None:
    def record(student: str) -> dict[str, Any]:
        return {
            "best": {"row": "kd", "seed": 3},
            "seeds": [2, 3],
            "rows": [{"method": "kd"}],
            "artifacts": {"students": {"kd": ["a", student]}},
            "task_settings": {},
            "seconds": {"import": 1.0},
        }

    for student, stays in (("b", True), ("b", True), ("c", False)):
        files = [tmp_path / f"student{name}{end}" for name in ("", "-kd", "-kd-seed3") for end in results.EXPORTED]
        further = tmp_path / "student-fm.onnx"  # of a row that this run has not
        for file in (*files, further):
            file.touch()
        results._write(tmp_path / "results.json", record(student))
        assert [file.exists() for file in files] == [stays] * 12
        assert further.exists()


def test_a_page_goes_with_the_results_that_it_shows(tmp_path: Path) -> None:
    def record(mean: float) -> dict[str, Any]:
        return {"rows": [{"method": "kd", "mean": mean}], "seconds": {"import": 1.0}}

    for mean, stays in ((80.0, False), (80.0, True), (81.0, False)):
        (tmp_path / "report.html").touch()
        results._write(tmp_path / "results.json", record(mean))
        assert (tmp_path / "report.html").exists() is stays


def test_results_that_a_crash_has_cut_are_written_again(tmp_path: Path) -> None:
    HeldFolder(tmp_path, "run").close()
    (tmp_path / "results.json").write_text('{"best": {"row')
    results._write(tmp_path / "results.json", {"rows": [], "seconds": {"import": 1.0}})
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == []
