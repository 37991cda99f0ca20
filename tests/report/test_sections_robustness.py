"""The page's and the tables' words on attacked images: every number as found, and only where there are any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cgankd.report import sections_robustness, table
from cgankd.report.blocks import Drawing, Grid, Note
from cgankd.report.render import render
from cgankd.report.run import read

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def scores(clean: float, pgd: float, autoattack: float, seeds: int = 3) -> dict[str, Any]:
    std = 0.25 if seeds > 1 else None
    return {
        name: {"values": [mean] * seeds, "mean": mean, "std": std}
        for name, mean in (("clean", clean), ("pgd", pgd), ("autoattack", autoattack))
    }


@pytest.fixture
def attacked(make_results: Results) -> Results:
    def make(task: str = "classification", **more: Any) -> dict[str, Any]:
        found = make_results(task, **more)
        for place, row in enumerate(found["rows"]):
            row["robustness"] = scores(80.5 + place, 40.25 + place, 31.75 + place)
        found["teacher"]["robustness"] = scores(90.5, 70.25, 65.75, seeds=1)
        settings = {"eps": 0.05, "steps": 20, "step_size": None, "attacks": ["pgd", "autoattack"], "images": 1234}
        return {**found, "robustness": settings}

    return make


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_row_has_its_scores_and_the_teacher_its_own(
    attacked: Results, write_run: Write, tmp_path: Path, task: str
) -> None:
    run = read(write_run(tmp_path / "run", attacked(task), stages=False))
    blocks = sections_robustness.robustness(run).blocks
    (grid,) = (block for block in blocks if isinstance(block, Grid))
    assert grid.header[1:] == ["clean", "under PGD", "under AutoAttack"]
    unit = " %" if task == "classification" else " degrees"
    places = table.decimals(run.results)
    rows = [[cell.replace("\u00a0", " ") for cell in row] for row in grid.rows]  # a score is never broken
    first = [f"{value:.{places}f} ± {0.25:.{places}f}{unit}" for value in (80.5, 40.25, 31.75)]
    assert rows[0] == ["student alone", *first]
    assert rows[-1] == ["the teacher", *(f"{v:.{places}f}{unit}" for v in (90.5, 70.25, 65.75))]
    assert len(grid.rows) == len(run.results["rows"]) + 1
    (note,) = (block for block in blocks if isinstance(block, Note))
    for said in ("1,234 test images", "up to 0.05", "20 steps", "AutoAttack"):
        assert said in note.text
    (drawing,) = (block for block in blocks if isinstance(block, Drawing))
    for said in ("under PGD", "under AutoAttack", "clean", "the teacher"):
        assert said in drawing.drawing
    assert ("to the left" if task == "classification" else "to the right") in drawing.caption


def test_the_page_has_the_section_where_it_was_measured_only(
    attacked: Results, make_results: Results, write_run: Write, tmp_path: Path
) -> None:
    for name, results, there in (
        ("with", attacked(bare=True), True),
        ("without", make_results("classification", bare=True), False),
    ):
        page = render(write_run(tmp_path / name, results, stages=False)).read_text()
        assert ('id="robustness"' in page) is there
        assert ("under PGD" in page) is there


def test_terminal_and_markdown_have_a_column_for_each_attack(attacked: Results, make_results: Results) -> None:
    found = attacked()
    console = Console(width=160)
    with console.capture() as shown:
        console.print(table.table(found))
    for row, said in zip(table.rows(found), ("40.2", "41.2", "42.2", "43.2", "44.2", "70.2"), strict=True):
        assert row.attacked[0].startswith(said)
        assert row.attacked[0] in shown.get()
    lines = table.as_markdown(found).splitlines()
    assert lines[0].endswith("| under PGD | under AutoAttack |")
    assert {line.count("|") for line in lines[:8]} == {10}
    assert "1,234 test images, each pixel (0 to 1) changed by up to 0.05" in table.as_markdown(found)
    plain = table.as_markdown(make_results("classification"))
    assert "under" not in plain
    assert plain.splitlines()[0].count("|") == 8


def test_a_row_without_a_measurement_has_a_dash(attacked: Results) -> None:
    found = attacked()
    del found["rows"][0]["robustness"]
    assert table.rows(found)[0].attacked == ("–", "–")
