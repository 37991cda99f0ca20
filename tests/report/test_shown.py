"""Tables and figures that show themselves."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from cgankd.report.curves import Curve, curves
from cgankd.report.shown import RunResults, ShownFigure, ShownTable, counts


def results() -> dict[str, Any]:
    row = {"method": "cgan", "network": "cnn8", "steps": 20, "real_images": 9, "fake_images": 1200, "mean": 81.25,
           "std": None, "difference": None}  # fmt: skip
    return {"recipe": "mine", "dataset": "a<b", "metric": "accuracy", "unit": "%", "higher_is_better": True,
            "seeds": [0], "rows": [row], "warnings": ["too <short>"]}  # fmt: skip


def test_results_of_a_run_show_as_its_table() -> None:
    shown = RunResults(results())
    text = repr(shown)
    assert "81.2 %" in text
    assert "9 + 1,200" in text
    assert text.endswith("! too <short>")
    page = shown._repr_html_()
    assert "<td>81.2 %</td>" in page
    assert "<th>accuracy, %</th>" in page
    assert "<p>too &lt;short&gt;</p>" in page
    assert shown["metric"] == "accuracy"


def test_a_table_is_aligned_in_a_terminal() -> None:
    assert repr(ShownTable(["name", "n"], [["a", "10"], ["longer", "2"]], ["a note"])) == (
        "name    n\na       10\nlonger  2\na note"
    )


def test_counts_have_a_line_for_each_label_and_one_for_all() -> None:
    entry = {"label": "cat", "requested": 5, "generated": 1009, "accepted": 8, "kept": 5}
    shown = counts({"per_label": [entry], **entry})
    assert shown.rows == [["cat", "5", "1,009", "8", "5"], ["all", "5", "1,009", "8", "5"]]


def test_a_figure_shows_itself_as_a_picture() -> None:
    figure = curves([Curve("loss", "#0072b2", [1, 2, 3], [3, 2, 1])], "loss")
    assert figure is not None
    picture = Image.open(io.BytesIO(ShownFigure(figure, "a loss")._repr_png_()))
    assert picture.format == "PNG"
    assert picture.width == 550
    assert repr(ShownFigure(figure, "a loss")) == "<figure: a loss>"
