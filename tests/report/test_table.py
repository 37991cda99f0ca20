"""The table's numbers as text: signs, units, spread, intervals; the same in all its outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from cgankd.report import table

Results = Callable[..., dict[str, Any]]


def small(**changes: Any) -> dict[str, Any]:
    """Two rows whose every figure is known."""
    control = {
        "method": "nokd_longer", "network": "resnet8", "steps": 4000, "real_images": 7000, "fake_images": 0,
        "values": [84.8, 84.9, 85.0], "mean": 84.9, "std": 0.1, "difference": None,
    }  # fmt: skip
    difference = {"to": "nokd_longer", "values": [0.7, 0.8, 0.9], "mean": 0.8, "low": 0.3, "high": 1.3}
    cgan = {
        **control, "method": "cgan", "fake_images": 50000, "values": [85.5, 85.7, 85.9], "mean": 85.7, "std": 0.2,
        "difference": difference,
    }  # fmt: skip
    return {
        "metric": "accuracy", "unit": "%", "higher_is_better": True, "seeds": [0, 1, 2], "vary": "student",
        "control": "nokd_longer", "rows": [control, cgan], "recipe": "r", "dataset": "d", **changes,
    }  # fmt: skip


def test_a_row_reads_as_a_person_would_write_it() -> None:
    control, cgan = table.rows(small())
    assert table.cells(cgan) == [
        "cgan", "cGAN-KD", "resnet8", "4,000", "7,000 + 50,000", "85.7 ± 0.2 %", "+0.8 [+0.3, +1.3]",
    ]  # fmt: skip
    assert (cgan.verdict, control.verdict, control.difference) == ("better", "control", "control")


def test_all_outputs_hold_the_same_figures() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table.table(small()))
    for text in ("85.7 ± 0.2 %", "84.9 ± 0.1 %", "+0.8 [+0.3, +1.3]", "7,000 + 50,000"):
        assert text in shown.get()
        assert text in table.as_markdown(small())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_row_is_one_line_of_eighty_characters(make_results: Results, task: str) -> None:
    results = make_results(task, ablation=True)
    results["rows"][1]["method"] = "cgan+kd+rkd@fake"
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table.table(results))
    lines = shown.get().splitlines()
    assert "…" not in shown.get()
    for row in table.rows(results):
        (line,) = [line for line in lines if line.startswith(f"{row.method} ") and " = " not in line]
        for text in (row.steps, row.images, row.score.removesuffix(" degrees"), row.difference):
            assert f" {text} " in f"{line} "


def test_the_words_for_methods_and_the_networks_are_under_the_table() -> None:
    teacher = {"network": "resnet8x4", "trained_on": "pool", "images": 54000, "test": 90.0, "values": [90.0]}
    console = Console(width=300)
    with console.capture() as shown:
        console.print(table.table(small(teacher=teacher)))
    assert " ".join(shown.get().split()).endswith(
        "nokd_longer = student alone, equal steps (control); cgan = cGAN-KD; students = resnet8; teacher = "
        "resnet8x4, trained on the whole pool."
    )


def test_students_of_different_networks_have_a_column_for_them() -> None:
    results = small()
    results["rows"][1]["network"] = "cnn8"
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table.table(results))
    rows = [line.split()[:3] for line in shown.get().splitlines() if "4,000" in line]
    assert rows == [["nokd_longer", "resnet8", "4,000"], ["cgan", "cnn8", "4,000"]]


def test_without_intervals_no_column_speaks_of_them() -> None:
    results = small(seeds=[0])
    results["rows"][1]["difference"] |= {"low": None, "high": None}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table.table(results))
    assert "interval]" not in shown.get()
    assert "(no interval)" not in shown.get()
    assert "+0.8" in shown.get()


def test_markup_in_names_is_text() -> None:
    found = small(recipe="[red]r[/red]")
    found["rows"][0]["network"] = "a|[bold]b"
    console = Console(width=140)
    with console.capture() as shown:
        console.print(table.table(found))
    assert "[red]r[/red]" in shown.get()
    assert "a|[bold]b" in shown.get()
    assert "a\\|[bold]b" in table.as_markdown(found)


def test_lower_is_better_turns_the_verdict_not_the_sign() -> None:
    found = small(metric="mae", unit="degrees", higher_is_better=False)
    found["rows"][1]["difference"] |= {"mean": -0.8, "low": -1.3, "high": -0.3}
    row = table.rows(found)[1]
    assert row.difference == "−0.8 [−1.3, −0.3]"
    assert row.score == "85.7 ± 0.2 degrees"
    assert row.verdict == "better"
    found["rows"][1]["difference"] |= {"mean": 0.8, "low": 0.3, "high": 1.3}
    assert table.rows(found)[1].verdict == "worse"
    assert "degrees" in table.header(found)[-1]


@pytest.mark.parametrize(("low", "high", "verdict"), [(-0.2, 0.6, "undecided"), (0.0, 0.6, "undecided")])
def test_an_interval_that_holds_zero_decides_nothing(low: float, high: float, verdict: str) -> None:
    found = small()
    found["rows"][1]["difference"] |= {"low": low, "high": high}
    assert table.rows(found)[1].verdict == verdict


def test_one_seed_has_neither_spread_nor_interval() -> None:
    found = small(seeds=[0])
    for row in found["rows"]:
        row["std"] = None
    found["rows"][1]["difference"] |= {"low": None, "high": None}
    row = table.rows(found)[1]
    assert (row.score, row.difference, row.verdict) == ("85.7 %", "+0.8 (no interval)", "no interval")
    assert "One seed: no spread and no interval." in table.footnotes(found)
    warned = found | {"warnings": ["One seed: no spread and no interval, so a difference may be chance."]}
    assert "One seed: no spread and no interval." not in table.footnotes(warned)  # the warning is printed below it
    assert "One seed: no spread and no interval." in table.as_markdown(warned)  # which has no warnings


def test_decimals_follow_size_and_spread() -> None:
    assert table.decimals(small()) == 1
    found = small()
    found["rows"][0]["std"] = 0.04
    assert table.decimals(found) == 2
    found = small(unit="years")
    for row, mean in zip(found["rows"], (5.2, 0.031), strict=True):
        row["mean"] = mean
    assert table.decimals(found) == 3
    for row, mean in zip(found["rows"], (3.1e-5, 0.4e-5), strict=True):  # such as metres of cells
        row |= {"mean": mean, "std": None, "difference": None}
    assert table.decimals(found) == 7
    assert table.score(found, 3.1e-5, 2.2e-6) == "0.0000310 ± 0.0000022 years"
    for row, mean in zip(found["rows"], (3.1e-7, 0.4e-7), strict=True):  # of which many zeros would hide the digits
        row |= {"mean": mean, "std": None, "difference": None}
    assert table.score(found, 3.1e-7, 2.2e-8) == "3.10e-07 ± 2.2e-08 years"
    for row, mean in zip(found["rows"], (3.612e8, 4.4e8), strict=True):
        row |= {"mean": mean, "std": 1.0e7, "difference": {"mean": -7.9e7, "low": -2.6e8, "high": 4.2e8}}
    assert table.score(found, 3.612e8, 6.04e7) == "3.61e+08 ± 6.0e+07 years"
    assert table.difference(found["rows"][0]["difference"], -6) == "−7.9e+07 [−2.60e+08, +4.20e+08]"
    moisture = small(unit="%", metric="mae", higher_is_better=False)  # a scalar in per cent, which is no accuracy
    for row, mean in zip(moisture["rows"], (0.034, 0.041), strict=True):
        row |= {"mean": mean, "std": None, "difference": None}
    assert table.score(moisture, 0.034, None) == "0.0340 %"  # not 0.0


def test_the_teacher_is_the_last_row() -> None:
    teacher = {"network": "resnet8x4", "trained_on": "pool", "images": 54000, "test": 90.0, "values": [89.0, 91.0]}
    row = table.rows(small(teacher=teacher))[-1]
    assert row.score == "90.0 ± 1.4 %"
    assert "whole pool" in row.words


def test_footnotes_say_what_a_seed_changes() -> None:
    assert "neither the spread nor the interval covers another teacher" in " ".join(table.footnotes(small()))
    assert "teacher, generator and student" in " ".join(table.footnotes(small(vary="everything")))
    given = small(vary="everything", teacher={"trained_on": "elsewhere"})  # a file is the same for every seed
    assert "a seed changes generator and student, but not the teacher." in " ".join(table.footnotes(given))


def test_the_row_that_ships_is_marked_in_every_output() -> None:
    found = small(best={"row": "cgan", "seed": 2})
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table.table(found))
    note = "*: the student that ships, its best seed 2, chosen by validation."
    assert [table.cells(row)[0] for row in table.rows(found)] == ["nokd_longer", "cgan *"]
    assert [line.split()[:2] for line in shown.get().splitlines() if "50,000" in line] == [["cgan", "*"]]
    assert note in " ".join(shown.get().split())
    assert r"| cgan \* |" in table.as_markdown(found)
    assert note in table.footnotes(found)
    assert not [text for text in table.footnotes(small()) if text.startswith("*")]
    assert "*: the student that ships, chosen by validation." in table.footnotes(found | {"seeds": [0]})


@pytest.mark.parametrize("ships", [True, False])
def test_the_student_that_was_trained_again_is_a_row_of_its_own(ships: bool) -> None:
    found = small(best={"row": "cgan", "seed": 2})
    again = {**found["rows"][1], "real_images": 8000, "mean": 86.4, "std": None, "seed": 2, "ships": ships}
    found |= {"refit": again}
    _, cgan, last = table.rows(found)
    assert (last.method, last.score, last.difference) == ("cgan, all labels", "86.4 %", "–")
    assert last.words == "cGAN-KD, trained again"
    assert (cgan.ships, last.ships) == (not ships, ships)
    what = "row cgan and seed 2, chosen by validation, trained again on all 8,000 labels"
    assert (
        f"*: the student that ships: {what}."
        if ships
        else f"*: the student that ships, chosen by validation; not {what}, because it got worse."
    ) in table.footnotes(found)


def test_the_balanced_accuracy_is_a_footnote() -> None:
    note = "Balanced accuracy (each class counts alike) of row *: 61.2 %."
    assert note in table.footnotes(small(best={"row": "cgan", "seed": 2, "balanced": 61.23}))
    assert not any("alanced" in text for text in table.footnotes(small(best={"row": "cgan", "seed": 2})))


def test_a_table_without_generated_images_has_one_number_of_images_and_a_short_heading() -> None:
    found = small(dataset="r")
    found["rows"][1] |= {"method": "kd", "fake_images": 0}
    found["rows"][1]["difference"] |= {"low": None, "high": None}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table.table(found))
    title, heading, *_ = shown.get().splitlines()
    assert title.strip() == "r"  # the data set has the name of the run
    assert heading.split() == ["method", "steps", "images", "accuracy,", "%", "difference"]
    assert [row.images for row in table.rows(found)] == ["7,000", "7,000"]
    assert table.header(found)[4] == "images"


def test_without_a_control_no_difference_is_explained() -> None:
    results, said = small(), "the row's score minus that of nokd_longer (the control)"
    assert said in " ".join(table.footnotes(results))
    assert said not in " ".join(table.footnotes({**results, "rows": results["rows"][1:]}))
    assert said in " ".join(table.footnotes({name: results[name] for name in results if name != "rows"}))
