"""The page's words on the generated images: every number as it was found, and what is missing by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgankd.report import sections_metrics
from cgankd.report.blocks import Drawing, Grid, Note, Section, Tiles
from cgankd.report.run import Run, read

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def measured(value: float | None, images: int = 500, **more: Any) -> dict[str, Any]:
    return {"value": value, "spread": None, "images": images, "why": None, **more}


def metrics(windows: int = 3) -> dict[str, Any]:
    of = {
        "raw": measured(3.25), "processed": measured(None, 4, why="4 images; a score needs 10 on either side"),
        "real": measured(0.125),
    }  # fmt: skip
    kid = {"raw": measured(0.0123, spread=0.0011), "processed": measured(0.002), "real": measured(-0.00001)}
    sfid = {"raw": measured(2.0, spread=0.5, windows=[2, 3]), "processed": measured(1.0), "real": measured(0.5, 40)}
    names = [f"window {k}" for k in range(windows)]
    near = {"images": 500, "train": 1000, "held_out": 60, "expected": 1 / 61, "median_ratio": 0.9, "why": None}
    term = {"error": None, "says": "a <b> & that", "cannot_say": "nothing more"}
    return {
        "reference": "500 random images",
        "scores": [
            {"name": "FID[teacher]", "better": "lower", "dimension": 96, "reference": 500, "of": of},
            {"name": "KID[teacher]", "better": "lower", "dimension": 96, "reference": 500, "of": kid},
            {"name": "SFID[teacher]", "better": "lower", "dimension": 96, "reference": 500, "of": sfid},
        ],
        "windows": [{
            "name": "SFID[teacher]", "windows": names,
            "of": {"raw": [3.0] * windows, "processed": [None] * windows, "real": [1.0] * windows},
        }],
        "memorisation": [
            {"space": "pixels", "set": "raw", "share": 0.0, "p_value": 1.0, **near},
            {"space": "pixels", "set": "processed", "share": 0.25, "p_value": 0.0002, **near},
        ],
        "bound": {
            "at_least": 0.25, "loss": "the share of wrong predictions",
            "terms": [
                {"term": "weight", "symbol": "θ", "value": 0.3, "adds": None, "n": 2200, **term},
                {"term": "teacher", "symbol": "E", "value": 0.1, "adds": None, "n": 60, **term, "error": 0.04},
                {"term": "chance", "symbol": "√", "value": 0.1, "adds": 0.25, "n": 200, **term},
            ],
        },
    }  # fmt: skip


@pytest.fixture
def opened(
    tmp_path: Path, make_results: Results, write_run: Write, write_artifact: Callable[..., str]
) -> Callable[..., Run]:
    """opened(metrics) -> the run as the report reads it, its closest pairs beside it."""

    def open_(found: dict[str, Any], task: str = "regression") -> Run:
        results = make_results(task, metrics=found)
        folder = write_run(tmp_path / "run", results, stages=False)
        images = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16)).astype(np.uint8)
        pairs = {
            "pixels_fakes": images,
            "pixels_train": images[::-1],
            "pixels_distances": np.array([0.1, 0.2, 1.5]),
        }
        results["artifacts"]["metrics"] = write_artifact(folder, "metrics-0", {}, pairs=pairs)
        (folder / "results.json").write_text(json.dumps(results))
        return read(folder)

    return open_


def of_kind(section: Section, kind: type) -> list[Any]:
    return [block for block in section.blocks if isinstance(block, kind)]


def plain(cells: list[str]) -> list[str]:
    return [cell.replace("\u00a0", " ") for cell in cells]


def test_scores_with_spread_sizes_and_what_is_missing(opened: Callable[..., Run]) -> None:
    section = sections_metrics.quality(opened(metrics()))
    table, explained = of_kind(section, Grid)
    assert table.header[1:4] == ["raw (500)", "processed (4)", "real images (500)"]
    fid, kid, sfid = (plain(row) for row in table.rows)
    assert fid == ["FID[teacher]", "3.25", "–", "0.125", "lower", "96"]
    assert kid[:4] == ["KID[teacher] × 1,000", "12.3 ± 1.1", "2.00 (500)", "−0.010"]
    assert sfid[1:4] == ["2.00 ± 0.50 (2 of 3 label windows)", "1.00 (500)", "0.500 (40)"]
    # the table fits a page because a line may break before a bracket, and only there
    assert table.rows[2][1].split(" ") == ["2.00\u00a0±\u00a00.50", "(2\u00a0of\u00a03\u00a0label\u00a0windows)"]
    assert [row[0] for row in explained.rows] == ["FID", "KID", "SFID"]
    said = " ".join(note.text for note in of_kind(section, Note))
    assert "No value for FID[teacher] of processed: 4 images; a score needs 10 on either side." in said
    assert "500 random images" in said
    assert len(of_kind(section, Drawing)) == 1


def test_classes_are_not_called_windows(opened: Callable[..., Run]) -> None:
    grid = of_kind(sections_metrics.quality(opened(metrics(), "classification")), Grid)[0]
    assert plain(grid.rows[2])[1] == "2.00 ± 0.50 (2 of 3 classes)"


def test_of_many_windows_some_are_shown(opened: Callable[..., Run]) -> None:
    (drawing,) = of_kind(sections_metrics.quality(opened(metrics(windows=40))), Drawing)
    assert "Only the 24 highest are shown." in drawing.caption


def test_of_empty_windows_a_sentence(opened: Callable[..., Run]) -> None:
    found = metrics()
    found["windows"][0]["of"] = {"raw": [None] * 3, "real": [None] * 3}
    section = sections_metrics.quality(opened(found))
    assert not of_kind(section, Drawing)
    assert "no label window has enough images" in of_kind(section, Note)[-1].text


def test_what_many_scores_lack_for_one_reason_is_one_sentence(opened: Callable[..., Run]) -> None:
    found, why = metrics(), "no label window has 10 images of every kind"
    for name in ("SFID[nokd]", "diversity[nokd]"):
        of = {which: measured(None, why=why) for which in ("raw", "processed", "real")}
        found["scores"].append({"name": name, "better": "lower", "dimension": 9, "reference": 500, "of": of})
    empty = {"raw": [None] * 3, "real": [None] * 3}
    found["windows"] = [{**found["windows"][0], "name": f"SFID[{space}]", "of": empty} for space in ("teacher", "nokd")]
    notes = [note.text for note in of_kind(sections_metrics.quality(opened(found)), Note)]
    assert f"No value for SFID[nokd], diversity[nokd]: {why}." in notes
    assert [note.startswith("SFID[teacher], SFID[nokd]: no ") for note in notes].count(True) == 1
    assert len(notes) == 4  # what is compared, two reasons, the windows


def test_copies_are_named_with_their_chance_and_shown(opened: Callable[..., Run]) -> None:
    section = sections_metrics.copies(opened(metrics()))
    verdict = of_kind(section, Note)[0].text
    assert "(processed images in pixels)" in verdict
    (table,) = of_kind(section, Grid)
    assert table.rows[1] == ["processed, in pixels", "25.0 %", "1.6 %", "under 0.001", "0.90"]
    (tiles,) = of_kind(section, Tiles)
    assert [tile.text for tile in tiles.tiles] == ["0.10", "0.20", "1.50"]


def test_no_copies_and_nothing_to_compare_with(opened: Callable[..., Run]) -> None:
    found = metrics()
    found["memorisation"][1]["p_value"] = 0.4
    run = opened(found)
    verdict = "No clear sign of copying: no p-value is below 0.01."  # the share, 25 %, is above the expected 1.6 %
    assert of_kind(sections_metrics.copies(run), Note)[0].text == verdict
    for entry in run.results["metrics"]["memorisation"]:
        entry["share"] = 0.0
    verdict = "No clear sign of copying: no share is above the expected one, and no p-value is below 0.01."
    assert of_kind(sections_metrics.copies(run), Note)[0].text == verdict
    for entry in run.results["metrics"]["memorisation"]:
        entry |= {"p_value": None, "share": None, "expected": None, "median_ratio": None, "why": "want of images"}
    section = sections_metrics.copies(run)
    assert "There are too few images to decide" in of_kind(section, Note)[0].text
    assert "raw, in pixels: no share (want of images)." in [note.text for note in of_kind(section, Note)]


def test_the_bounds_terms(opened: Callable[..., Run]) -> None:
    run = opened(metrics())
    section = sections_metrics.theory(run)
    (table,) = of_kind(section, Grid)
    assert plain(table.rows[0])[:4] == ["weight, θ", "0.300", "2,200", "–"]
    assert plain(table.rows[1])[1] == "0.100 ± 0.040"
    assert table.rows[2][3] == "0.250"
    assert "add up to 0.25; the bound is at least that." in of_kind(section, Note)[0].text
    run.results["metrics"]["bound"]["at_least"] = 1.3
    assert "here it says nothing about the student" in of_kind(sections_metrics.theory(run), Note)[0].text
