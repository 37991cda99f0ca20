"""The settings that pages show: those of generated images only where a run has some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgankd.report.render import render
from cgankd.report.run import read
from cgankd.report.settings import as_text

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
RECIPE = """\
teacher: {network: resnet8}
generator: {steps: 6000}
ratio: {steps: 400}
metrics:
  generator: {images: 2000}
  robustness: null
"""
SHORT = "teacher:\n  network: resnet8\nmetrics:\n  robustness: null\n"


@pytest.mark.parametrize(
    ("recipe", "changes", "shown"),
    [
        (RECIPE, {}, SHORT),
        (RECIPE, {"generator": {"parameters": 2000000}}, RECIPE),
        (RECIPE, {"autopilot": {"chosen": "kd"}}, RECIPE),  # it may have tried generated images in vain
        ("generator: {source: made/}\nratio: {steps: 400}\n", {}, "generator: {source: made/}\nratio: {steps: 400}\n"),
        ("seeds: [0]\n", {}, "seeds: [0]\n"),
        ("name: [bars", {}, "name: [bars"),  # no YAML
        ("", {}, ""),
    ],
)
def test_settings_of_a_generator_that_was_never_trained_are_left_out(
    recipe: str, changes: dict[str, Any], shown: str, tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    run = write_run(tmp_path, without_generated_images(make_results) | changes, stages=False)
    (run / "recipe.yaml").write_text(recipe)
    assert as_text(read(run)) == (shown, recipe != shown)


def test_the_page_says_that_they_are_left_out(tmp_path: Path, make_results: Results, write_run: Write) -> None:
    run = write_run(tmp_path, without_generated_images(make_results), stages=False)
    (run / "recipe.yaml").write_text(RECIPE)
    title = "every setting of this run, but for those of generated images, because no row has any"
    assert f"{title}</summary><pre>{SHORT}</pre>" in render(run).read_text()


def without_generated_images(make_results: Results) -> dict[str, Any]:
    results = make_results("classification", bare=True)
    del results["generator"]
    return results | {"rows": [row for row in results["rows"] if not row["fake_images"]]}
