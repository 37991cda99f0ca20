"""Pictures that are drawn only where they show something."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.markers import MarkerStyle

from cgankd.distill import METHODS
from cgankd.pipeline import stages
from cgankd.report import curves, figures, sections, time_chart
from cgankd.report.blocks import Drawing
from cgankd.report.run import read


def test_acceptance_is_drawn_where_something_was_rejected() -> None:
    def labels(*accepted: int) -> list[dict[str, object]]:
        return [{"label": str(n), "generated": 10, "accepted": count} for n, count in enumerate(accepted)]

    assert curves.acceptance([]) is None
    assert curves.acceptance(labels(10, 10)) is None
    assert curves.acceptance([{"label": "a", "generated": 0, "accepted": 0}]) is None
    drawn = curves.acceptance(labels(10, 9))
    assert drawn is not None
    assert drawn[1] is False


def test_the_student_trained_again_on_all_labels_has_a_loss_and_no_validation_scores(
    tmp_path: Path,
    make_results: Callable[..., dict[str, Any]],
    write_run: Callable[..., Path],
    write_artifact: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = make_results("classification", bare=True)
    results["refit"] = results["rows"][0] | {"seed": 0, "ships": True}
    summary = {"history": [{"step": step, "loss": 1.0 / step, "val": 99.0} for step in (1, 2)]}
    results["artifacts"] = {
        "students": {"nokd": [write_artifact(tmp_path, "student-0", summary)]},
        "refit": write_artifact(tmp_path, "student-1", summary),
    }
    drawn: list[list[str]] = []
    monkeypatch.setattr(curves, "curves", lambda lines, *_, **__: drawn.append([line.name for line in lines]))
    page = read(write_run(tmp_path, results, stages=False))
    sections.learning(page)
    assert drawn == [["student alone"], ["student alone", "student alone, trained again"]]
    monkeypatch.undo()
    caption = next(block.caption for block in sections.learning(page).blocks if isinstance(block, Drawing))
    assert caption.endswith(
        "Not drawn: student alone, trained again on all labels, because it has learnt the validation images."
    )


def test_every_method_has_a_mark_that_is_seen_and_none_of_the_main_rows_own() -> None:
    others = [name for method in METHODS for name in (method, f"cgan+{method}") if name not in figures.STYLE]
    marks = [figures.style(name) for name in others]
    assert all(MarkerStyle(marker).is_filled() for _, marker in marks)
    assert not set(marks) & {figures.style(name) for name in figures.STYLE}
    assert len(set(marks)) > 0.6 * len(marks)  # by a hash, so some have the same


def test_of_many_methods_the_control_and_the_furthest_are_drawn_and_their_names_take_no_room(
    make_results: Callable[..., dict[str, Any]],
) -> None:
    results = make_results("regression")
    plain = figures.bins(results)
    assert plain is not None
    assert plain[1] == ""
    (control,) = [row for row in results["rows"] if row["method"] == "nokd_longer"]
    results["rows"] = [control] + [
        {**control, "method": f"cgan+kd+{name}", "mean": control["mean"] - number}
        for number, name in enumerate("abcdefghijk", start=1)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, where nothing is left of the axes
        found = figures.bins(results)
        assert found is not None
        figures.svg(found[0], "bins", "")
    (axes,) = found[0].axes
    assert found[1] == " Of 12 methods, nokd_longer and those furthest from it are shown."
    assert [line.get_label() for line in axes.lines][1:] == [f"cGAN-KD + kd+{name}" for name in "efghijk"]
    plain[0].draw_without_rendering()
    before = plain[0].axes[0].get_window_extent().height
    assert axes.get_window_extent().height > 0.9 * before


def test_curves_of_one_colour_have_other_dashes() -> None:
    lines = [
        curves.Curve(name, "#e69f00", [1, 2, 3], [1, 2, seed], seed=True)
        for name in ("kd", "kd~cutmix", "dkd")
        for seed in (3, 4)
    ]
    figure = curves.curves([*lines, curves.Curve("cgan", "#0072b2", [1, 2, 3], [1, 2, 3])], "loss")
    assert figure is not None
    kd, again, cutmix, _, dkd, _, cgan = (line._dash_pattern for line in figure.axes[0].lines)
    assert kd == again == cgan == (0, None)
    assert len({str(dashes) for dashes in (kd, cutmix, dkd)}) == 3


def test_a_legend_has_two_columns_where_both_fit_beside_each_other() -> None:
    def columns(*labels: str) -> int:
        _, axes = figures.canvas(2.0)
        for label in labels:
            axes.plot([0, 1], [0, 1], label=label)
        figures.legend(axes)
        return int(axes.figure.legends[0]._ncols)

    usual = ("student alone", "student alone, equal steps", "plain KD", "cGAN-KD", "cGAN-KD + KD", "the teacher")
    assert columns(*usual) == 2  # 28 + 12 letters, and 5 for each mark
    assert columns(*usual[:3], *usual[4:], "cGAN-KD + kd+rkd@fake, a long name") == 1


def test_a_legend_fits_beside_long_names_of_classes_which_differ() -> None:
    figure, axes = figures.canvas(2.0)
    axes.plot([0, 1], [0, -1], "D", markersize=40, label="student alone, equal steps (control)")
    axes.plot([0, 1], [0, -1], "o", markersize=5, label="cGAN-KD + KD")
    figures.name_bins(axes, ["Acer_saccharum_autumn_leaf_front", "Acer_saccharum_autumn_leaf_back"])
    figures.legend(axes)
    figure.draw_without_rendering()
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "Acer_sacchar…_leaf_front",
        "Acer_sacchar…n_leaf_back",
    ]
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 >= 0
    assert legend.get_window_extent().x1 <= figure.bbox.width
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1
    assert axes.get_window_extent().width > 0.5 * figure.bbox.width
    assert [handle.get_markersize() for handle in legend.legend_handles] == [7, 5]


def test_names_of_bins_are_longer_or_have_numbers_where_they_would_look_the_same() -> None:
    def shown(*names: str) -> list[str]:
        _, axes = figures.canvas(2.0)
        figures.name_bins(axes, names)
        return [text.get_text() for text in axes.get_yticklabels()]

    names = [f"{ends}{'x' * 24}{middle}{'y' * 24}{ends}" for ends in "ab" for middle in "ab"]
    assert shown(*names) == [f"…{'x' * 5}{name[25:]}" for name in names]
    hidden = [f"{ends}{'x' * 40}{middle}{'y' * 40}{ends}" for ends in "ab" for middle in "ab"]
    assert shown(*hidden) == [f"{place}: {ends}{'x' * 22}…" for place, ends in enumerate("aabb", start=1)]


def marks(figure: Any) -> list[tuple[float, float, float]]:
    """x, y and size of every mark of a figure."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "", None)]
    return [(x, y, line.get_markersize()) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def test_equal_scores_of_a_class_are_drawn_below_each_other(make_results: Callable[..., dict[str, Any]]) -> None:
    results = make_results("classification")
    for row in results["rows"]:
        row["per_bin"] = [50.0] * 10
    drawn = figures.bins(results)
    assert drawn is not None
    heights = sorted(y for x, y, _ in marks(drawn[0]) if x == 50.0)
    assert len(heights) == 4 * 10  # four methods beside the shorter nokd
    assert min(after - before for before, after in pairwise(heights)) > 0.2
    assert all(abs(y - round(y)) < 0.5 for y in heights)  # each within its own class


@pytest.mark.parametrize("names", [["nokd", "kd"], ["nokd", "kd", "dkd"], ["cgan_raw", "cgan"], ["nokd_longer", "kd"]])
def test_scores_per_class_are_drawn_for_several_rows_without_a_control_too(
    make_results: Callable[..., dict[str, Any]], names: list[str]
) -> None:
    results = make_results("classification")
    some = results["rows"][0] | {"per_bin": [50.0] * 10}
    results["rows"] = [{**some, "method": name} for name in names]
    drawn = figures.bins(results)
    assert drawn is not None
    assert len(marks(drawn[0])) == len(names) * 10


def test_a_network_is_drawn_at_its_own_size_and_hidden_marks_are_larger(
    make_results: Callable[..., dict[str, Any]],
) -> None:
    results = make_results("classification")
    for row, mean in zip(results["rows"], (80.0, 80.0, 82.0, 84.0, 84.0), strict=True):
        row |= {"mean": mean, "std": None}
    figure = figures.cost(results, "parameters")
    assert {x for x, _, _ in marks(figure)} == {78042.0, 1233540.0}
    assert [size for x, _, size in marks(figure) if x == 78042.0] == [7, 15, 7, 7, 15]


def test_every_stage_has_a_title_in_the_time_chart() -> None:
    named = {name for name in dir(stages) if hasattr(getattr(stages, name), "stage_version")}
    assert named >= {"train_network", "find_worst_answers"}
    assert named <= time_chart.STAGES.keys()
    labels = time_chart.times({"train_network": 3.0, "own_stage": 1.0}).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["teacher", "own stage"]


def test_figures_of_an_earlier_call_are_removed(tmp_path: Path) -> None:
    figures.save(figures.canvas(1.0)[0], tmp_path / "labels")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.png", "labels.svg"]
    figures.save(None, tmp_path / "labels")
    assert not list(tmp_path.iterdir())
