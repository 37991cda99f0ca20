"""The section on all test images: confusion matrices of classes, and predictions against true labels of scalars."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgankd.report import answers, figures
from cgankd.report.blocks import Block, Drawing, Grid, Note
from cgankd.report.render import render
from cgankd.report.run import read
from cgankd.report.sections_answers import answered
from cgankd.tasks import CircularRegression, Classification, Regression, Task

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
WriteArtifact = Callable[..., str]
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write) -> Folder:
    """Writes the folder of a run whose control and cgan_kd have given these answers; returns its path."""

    def write(task: Task, labels: np.ndarray, best: np.ndarray, control: np.ndarray | None = None) -> Path:
        chosen = {"row": "cgan_kd", "seed": 2, "val": 90.0, "test": 89.0}
        results = make_results(task.name, bare=True, best=chosen, task_settings=task.to_json())
        tensors = {"labels": labels, "cgan_kd_predictions": best}
        if control is not None:
            tensors["nokd_longer_predictions"] = control
        networks = [name.removesuffix("_predictions") for name in reversed(tensors) if name != "labels"]
        path = write_artifact(tmp_path, "worst-0", {"networks": networks}, answers=tensors)
        results["artifacts"]["worst"] = path
        return write_run(tmp_path, results, stages=False)

    return write


def blocks(folder: Path) -> list[Block]:
    section = answered(read(folder))
    assert section is not None
    return list(section.blocks)


def grids(folder: Path) -> list[Grid]:
    return [block for block in blocks(folder) if isinstance(block, Grid)]


ANIMALS = Classification(("cat", "dog", "eel"))
LABELS = np.repeat([0, 1, 2], [5, 4, 1])
BEST = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 2])  # of 5 cats two are taken for dogs, of 4 dogs one for an eel
CONTROL = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 0])


def test_the_largest_confusions_of_the_best_student_come_first(folder: Folder) -> None:
    confusions, _ = grids(folder(ANIMALS, LABELS, BEST, CONTROL))
    assert confusions.header == ["true class", "taken for", "the best student", "the control"]
    assert confusions.rows == [
        ["cat", "dog", "2 of 5 (40.0\u00a0%)", "3 of 5 (60.0\u00a0%)"],
        ["dog", "eel", "1 of 4 (25.0\u00a0%)", "0 of 4 (0.0\u00a0%)"],
    ]


def test_classes_are_sorted_by_the_accuracy_of_the_best_student(folder: Folder) -> None:
    path = folder(ANIMALS, LABELS, BEST, CONTROL)
    accuracies = grids(path)[1]
    assert accuracies.rows == [
        ["cat", "5", "60.0", "40.0", "dog (2)"],
        ["dog", "4", "75.0", "100.0", "eel (1)"],
        ["eel", "1", "100.0", "0.0", "–"],
    ]
    texts = [block.text for block in blocks(path) if isinstance(block, Note)]
    assert texts[-1] == "Lowest accuracy of the best student by class: cat (60.0\u00a0% of 5)."
    balanced = "78.3\u00a0% (the best student), 46.7\u00a0% (the control)"  # (60 + 75 + 100) / 3, (40 + 100 + 0) / 3
    assert any(text.startswith("Balanced accuracy") and balanced in text for text in texts)
    assert "row cgan_kd, seed 2; the control has the same seed" in texts[0]
    assert texts[0].endswith(" The answers are of one seed; each score in the table above is a mean over 3 seeds.")


@pytest.mark.parametrize(
    ("control", "end"), [(CONTROL, "; the control's score there is a mean over 3 seeds."), (None, ".")]
)
def test_the_score_of_the_student_trained_again_is_in_a_line_of_its_own(
    control: np.ndarray | None, end: str, folder: Folder
) -> None:
    path = folder(ANIMALS, LABELS, BEST, control)
    results = json.loads((path / "results.json").read_text())
    results["refit"] = results["rows"][-1] | {"seed": 2, "ships": True}
    (path / "results.json").write_text(json.dumps(results))
    (intro, *_) = [block.text for block in blocks(path) if isinstance(block, Note)]
    assert intro.endswith(f' The best student is line "cgan_kd, all labels" of the table above{end}')


def test_the_five_classes_with_the_lowest_accuracy_are_named_and_one_without_images_is_not(folder: Folder) -> None:
    labels = np.repeat(np.arange(11), 10)  # class 11 has no test images
    best = np.where(np.arange(110) % 10 < labels, 11, labels)  # of class n, n of 10 are wrong
    path = folder(Classification(tuple(f"c{n}" for n in range(12))), labels, best)
    (*_, sentence) = [block.text for block in blocks(path) if isinstance(block, Note)]
    assert [part.split(" ")[-5] for part in sentence.replace("\u00a0", " ").split("),")] == [
        "c10", "c9", "c8", "c7", "c6",
    ]  # fmt: skip
    assert grids(path)[1].rows[-1] == ["c11", "0", "–", "–"]


def test_classes_with_the_same_lowest_accuracy_are_all_named(folder: Folder) -> None:
    labels = np.repeat(np.arange(4), 10)
    task = Classification(("a", "b", "c", "d"))
    best = np.where(np.isin(labels, [0, 1, 2]) & (np.arange(40) % 10 < 3), 3, labels)  # d is right, the others 7 of 10
    (*_, sentence) = [block.text for block in blocks(folder(task, labels, best)) if isinstance(block, Note)]
    assert [name for name in "abcd" if f"{name} (" in sentence] == ["a", "b", "c"]


def test_of_many_classes_with_the_same_lowest_accuracy_five_are_named(folder: Folder) -> None:
    labels = np.repeat(np.arange(20), 10)
    best = np.where((labels < 12) & (np.arange(200) % 10 < 3), 19, labels)  # the first twelve have 7 of 10
    path = folder(Classification(tuple(f"c{n}" for n in range(20))), labels, best)
    texts = [block.text for block in blocks(path) if isinstance(block, Note)]
    assert texts[-1].count("%") == 5
    assert texts[-1].endswith("c4 (70.0\u00a0% of 10) and 7 more with the last accuracy.")
    assert not any(text.startswith("Balanced") for text in texts)  # all classes have ten images


def test_classes_of_about_the_same_size_have_no_balanced_accuracy(folder: Folder) -> None:
    path = folder(ANIMALS, np.repeat([0, 1, 2], [4, 3, 3]), BEST, CONTROL)
    assert not any(block.text.startswith("Balanced") for block in blocks(path) if isinstance(block, Note))


def test_a_matrix_has_the_percentages_of_each_true_class(folder: Folder) -> None:
    best, control = [block for block in blocks(folder(ANIMALS, LABELS, BEST, CONTROL)) if isinstance(block, Drawing)]
    assert "Answers of the best student" in best.caption
    assert "Answers of the control" in control.caption
    assert best.caption.endswith("orange is wrong (strongest colour: 100\u00a0%).")  # the control's eel, in both
    counts = ANIMALS.confusion(torch.from_numpy(LABELS), torch.from_numpy(BEST))
    figure = answers.matrix(counts.numpy(), list(ANIMALS.class_names), [0, 1, 2], 100.0, "kd")
    texts = {(int(text._y), int(text._x)): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "60", (0, 1): "40", (1, 1): "75", (1, 2): "25", (2, 2): "100"}


def test_a_student_that_is_always_right_has_no_confusions(folder: Folder) -> None:
    path = folder(ANIMALS, LABELS, LABELS)
    assert [grid.caption[:8] for grid in grids(path)] == ["Accuracy"]
    assert "The best student is right about every test image." in render(path).read_text(encoding="utf-8")


def test_of_many_classes_those_with_the_largest_confusions_are_drawn(folder: Folder) -> None:
    labels = np.repeat(np.arange(43), 20)
    best = labels.copy()
    best[:15], best[800:810] = 42, 3  # of class 0 and class 40
    path = folder(Classification(tuple(f"sign of a limit of {n} km/h" for n in range(43))), labels, best, best)
    drawings = [block for block in blocks(path) if isinstance(block, Drawing)]
    assert len(drawings) == 2
    assert "Of 43 classes, the 4 with the largest confusions" in drawings[0].caption
    counts = np.zeros((43, 43), np.int64)
    counts[np.arange(42), np.arange(1, 43)] = np.arange(1, 43)  # the largest: 41 for 42, 40 for 41, ...
    assert answers.classes_shown(counts) == list(range(43 - figures.MOST_BINS, 43))
    assert answers.classes_shown(counts[:24, :24]) == list(range(24))


def test_shares_are_computed_once_for_each_network(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    # For each class once more would be 1,000 times 1,000 x 1,000 numbers.
    computed: list[int] = []

    def counted(counts: np.ndarray, shares: Callable[..., np.ndarray] = answers.shares) -> np.ndarray:
        computed.append(len(counts))
        return shares(counts)

    monkeypatch.setattr(answers, "shares", counted)
    labels = np.arange(60)
    grids(folder(Classification(tuple(map(str, range(60)))), labels, labels[::-1].copy()))
    assert 0 < len(computed) < 10


@pytest.mark.parametrize("classes", [2, 10, 24])
def test_long_names_leave_room_for_the_matrix_and_are_escaped(classes: int) -> None:
    names = [f"<b>a class</b> with a ${n}$ name that is long & odd, number {n}" for n in range(classes)]
    counts = np.full((classes, classes), 3) + 90 * np.eye(classes, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, where nothing is left of the axes
        figure = answers.matrix(counts, names, list(range(classes)), 10.0, "the best student")
        drawing = figures.svg(figure, "confusion", "")
    assert "<b>" not in drawing
    assert figure.axes[0].get_window_extent().width > 0.55 * figure.bbox.width


def ticks(names: list[str], shown: list[int]) -> tuple[list[str], list[str]]:
    """The names of the rows and columns of a confusion matrix."""
    axes = answers.matrix(np.eye(len(names), dtype=int), names, shown, 10.0, "the best student").axes[0]
    rows, columns = axes.get_yticklabels(), axes.get_xticklabels()
    return [text.get_text() for text in rows], [text.get_text() for text in columns]


def test_rows_and_columns_have_names_that_differ() -> None:
    names = [f"Acer_saccharum_{season}_leaf_{side}" for season in ("autumn", "spring") for side in ("back", "front")]
    rows, columns = ticks(names, [0, 1, 2, 3])
    assert rows == ["…autumn_leaf_back", "…autumn_leaf_front", "…spring_leaf_back", "…spring_leaf_front"]
    assert columns == ["…autumn…_back", "…autumn…front", "…spring…_back", "…spring…front"]
    assert ticks(["ant", "bee"], [1, 0]) == (["bee", "ant"], ["bee", "ant"])


def test_numbers_connect_rows_with_columns_where_short_names_would_look_the_same() -> None:
    names = [f"{ends}{'x' * 30}{middle}{'y' * 30}{ends}" for ends in "ab" for middle in "ab"]
    rows, columns = ticks(names, [0, 2, 3])
    assert rows == [f"0: a{'x' * 14}…", f"2: b{'x' * 14}…", f"3: b{'x' * 14}…"]
    assert columns == ["0", "2", "3"]


def test_scalars_are_drawn_against_the_true_label_with_their_errors(folder: Folder) -> None:
    labels = np.array([0.0, 45.0, 90.0, 180.0], np.float32)
    path = folder(Regression(0.0, 180.0, "degrees"), labels, labels + np.float32(2), labels - np.float32([1, 1, 1, 9]))
    (errors,) = grids(path)
    assert errors.caption == "Prediction minus true label, degrees"
    assert errors.rows == [
        ["the best student", "2.00", "2.00", "2.00", "2.00", "+2.00"],
        ["the control", "3.00", "1.00", "6.60", "9.00", "−3.00"],
    ]
    assert 'id="predicted"' in render(path).read_text(encoding="utf-8")


def test_a_label_that_wraps_is_compared_on_the_shorter_way_round(folder: Folder) -> None:
    labels = np.array([359.0, 1.0], np.float32)
    path = folder(CircularRegression(0.0, 360.0, "degrees"), labels, np.array([1.0, 358.0], np.float32))
    (errors,) = grids(path)
    assert errors.rows == [["the best student", "2.50", "2.50", "2.90", "3.00", "−0.50"]]
    (drawing,) = [block for block in blocks(path) if isinstance(block, Drawing)]
    assert "on the shorter way round" in drawing.caption


def test_every_image_is_in_a_cell_and_a_single_one_is_seen() -> None:
    labels = np.append(np.zeros(99), 10.0)
    figure = answers.density(labels, labels, answers.limits([labels]), "the best student", "")
    cells = {
        round(float(patch.get_alpha()), 3): len(patch.get_path().vertices) // 5 for patch in figure.axes[0].patches
    }
    assert cells == {0.4: 1, 1.0: 1}
    assert answers.limits([np.array([3.0])]) == (2.5, 3.5)


def test_a_run_without_answers_has_no_such_section(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("classification", bare=True)
    assert answered(read(write_run(tmp_path, results, stages=False))) is None
    results["artifacts"]["worst"] = write_artifact(tmp_path, "worst-0", {"networks": ["nokd_longer"]})
    path = write_run(tmp_path, results, stages=False)
    assert answered(read(path)) is None
    assert 'id="confusion"' not in render(path).read_text(encoding="utf-8")
