"""Several runs side by side: which scores share a table, what is marked, and what differs in the settings."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgankd.core.errors import UserError
from cgankd.report import comparison

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path, make_results: Results, write_run: Write) -> list[Path]:
    """Two runs on the same test images; the second has a better cGAN-KD + KD, and another number of steps."""
    known = {"test_images": "abc", "best": {"row": "kd", "seed": 0, "val": 1.0, "test": 1.0}}
    made = [make_results("classification", **known), make_results("classification", gain=2.0, **known)]
    paths = [write_run(tmp_path / name, each, stages=False) for name, each in zip("ab", made, strict=True)]
    for path, steps in zip(paths, (100, 200), strict=True):
        (path / "recipe.yaml").write_text(f"name: {path.name}\nseeds: [0]\nteacher:\n  fit: {{steps: {steps}}}\n")
    return paths


def test_rows_of_all_runs_are_in_one_table_with_the_best_marked(folders: list[Path]) -> None:
    (part,) = comparison.parts(comparison.read_runs(folders))
    assert part.why == ""
    texts, best = comparison.rows(part)
    assert [text[0] for text in texts] == ["a"] * 6 + ["b"] * 6
    assert texts[best][:2] == ["b", "cGAN-KD + KD"]
    assert texts[best][3] == "best here"
    assert [text[1] for text in texts if text[3] == "chosen on validation"] == ["plain KD", "plain KD"]
    assert texts[0][4:] == ["resnet8", "78,042", "0.81", "7,000 + 0", "3"]
    assert texts[5][1:] == ["the teacher", "87.90", "", "resnet8x4", "1,233,540", "4.20", "7,000", "1"]
    lines = [line for line in comparison.figure(part).axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 10


def test_a_student_trained_again_on_all_labels_is_named_below(folders: list[Path]) -> None:
    results = json.loads((folders[1] / "results.json").read_text())
    results["refit"] = {"mean": 91.25, "real_images": 1100, "ships": True}
    (folders[1] / "results.json").write_text(json.dumps(results))
    said = "b exports that student trained again on all 1,100 labels: 91.2"
    named = [note for note in comparison.footnotes(comparison.parts(comparison.read_runs(folders))[0]) if "all" in note]
    assert len(named) == 1
    assert named[0].startswith(said)


def test_teachers_of_several_seeds_have_their_spread(folders: list[Path]) -> None:
    results = json.loads((folders[0] / "results.json").read_text())
    results["teacher"] |= {"test": 85.0, "values": [84.0, 86.0]}
    (folders[0] / "results.json").write_text(json.dumps(results))
    texts, _ = comparison.rows(comparison.parts(comparison.read_runs(folders))[0])
    assert texts[5][1:3] == ["the teacher", "85.00 ± 1.41"]
    assert texts[5][-1] == "2"


def test_only_settings_that_differ_are_listed(folders: list[Path]) -> None:
    runs = comparison.read_runs(folders)
    assert comparison.different_settings(runs) == [["teacher.fit.steps", "100", "200"]]
    (folders[1] / "recipe.yaml").write_text("name: b\nseeds: [0]\nteacher:\n  fit: {steps: 100}\nsearch: null\n")
    assert comparison.different_settings(comparison.read_runs(folders)) == [["search", "–", "none"]]
    (folders[1] / "recipe.yaml").unlink()
    assert comparison.different_settings(comparison.read_runs(folders)) == []


def test_settings_of_generated_images_count_for_runs_that_made_some(folders: list[Path]) -> None:
    for folder, steps in zip(folders, (5, 6), strict=True):
        (folder / "recipe.yaml").write_text(f"generator: {{steps: {steps}}}\nsynthesis: {{images: 10}}\n")
    assert comparison.different_settings(comparison.read_runs(folders)) == [["generator.steps", "5", "6"]]
    results = json.loads((folders[1] / "results.json").read_text())
    results.pop("generator", None)
    for row in results["rows"]:
        row["fake_images"] = 0
    (folders[1] / "results.json").write_text(json.dumps(results))
    found = comparison.different_settings(comparison.read_runs(folders))
    assert found == [["generator.steps", "5", "–"], ["synthesis.images", "10", "–"]]


@pytest.mark.parametrize(
    ("task", "changes", "why"),
    [
        (
            "classification",
            {"test_images": "def", "dataset": "other"},
            "the test images differ: other there, bars in a",
        ),
        ("classification", {"test_images": "def"}, "the test images differ."),
        ("regression", {"test_images": "abc"}, "the score is MAE, degrees there, and accuracy, % in a"),
        ("classification", {}, "c does not say which test images it used"),
    ],
)
def test_other_test_images_are_in_a_table_of_their_own(
    task: str, changes: dict[str, Any], why: str, folders: list[Path], tmp_path: Path, make_results: Results,
    write_run: Write,
) -> None:  # fmt: skip
    other = write_run(tmp_path / "c", make_results(task, **changes), stages=False)
    first, second = comparison.parts(comparison.read_runs([*folders, other]))
    assert (list(first.runs), list(second.runs), first.why) == (["a", "b"], ["c"], "")
    assert second.why.startswith("c is not compared with a, because ")
    assert why in second.why


def test_the_page(folders: list[Path], tmp_path: Path, make_results: Results, write_run: Write) -> None:
    bad = "<b>bad</b>"
    other = write_run(tmp_path / "c", make_results("regression", dataset=bad, warnings=[bad]), stages=False)
    page = comparison.render(comparison.read_runs([*folders, other]), tmp_path / "page.html")
    source = page.read_text(encoding="utf-8")
    assert bad not in source
    assert not re.search(r"://|<script [^>]|<link|@import", source)
    text = html.unescape(re.sub(r"<[^>]+>", " ", source))
    for words in (
        "3 runs compared", "best here", "c is not compared with a", "teacher.fit.steps", "a, plain KD: ", f"c: {bad}",
        "Without recipe.yaml, so its settings are not known: c.",
    ):  # fmt: skip
        assert words in text, words
    before = page.read_bytes()
    assert comparison.render(comparison.read_runs([*folders, other]), page).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "page.html"]


def test_folders_that_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two or more finished runs"):
        comparison.read_runs(folders[:1])
    with pytest.raises(UserError, match="is given twice"):
        comparison.read_runs([folders[0], folders[1], tmp_path / "b" / ".." / "a"])
    with pytest.raises(UserError, match=r"holds no results\.json"):
        comparison.read_runs([folders[0], tmp_path])
    with pytest.raises(UserError, match=r"absent does not exist; needed"):
        comparison.read_runs([folders[0], tmp_path / "absent"])
    with pytest.raises(UserError, match="can't be written"):
        comparison.render(comparison.read_runs(folders), tmp_path / "absent" / "page.html")


def test_the_time_of_each_run(folders: list[Path]) -> None:
    assert comparison.times(comparison.read_runs(folders)) == "Time in total: a 1 h 6 min, b 1 h 6 min."


def test_runs_in_folders_of_the_same_name_have_their_paths_as_names(
    tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    paths = [write_run(tmp_path / parent / "run", make_results("regression"), stages=False) for parent in "xy"]
    assert list(comparison.read_runs(paths)) == [str(path) for path in paths]


@pytest.mark.filterwarnings("error")
def test_the_figure_has_room_for_long_names(folders: list[Path]) -> None:
    long = [folder.rename(folder.with_name(f"digits-cnn16-student.network={folder.name}-142243")) for folder in folders]
    (part,) = comparison.parts(comparison.read_runs(long))
    drawing = comparison.figure(part)
    drawing.draw_without_rendering()
    assert drawing.axes[0].get_window_extent().width > 0.9 * drawing.bbox.width
    assert any("…b-142243, plain KD: " in text.get_text() for text in drawing.axes[0].texts)


def test_the_figure_has_names_of_runs_that_differ(folders: list[Path]) -> None:
    names = [f"digits-cnn16-{season}-leaves-of-2026-142243" for season in ("autumn", "spring")]
    long = [folder.rename(folder.with_name(name)) for folder, name in zip(folders, names, strict=False)]
    (part,) = comparison.parts(comparison.read_runs(long))
    part.runs[names[0]].results["rows"][2]["method"] = "cgan+kd+kdiga~randaugment~cutmix"
    drawing = comparison.figure(part)
    texts = [text.get_text() for text in drawing.axes[0].texts]
    assert texts[2].startswith("…autumn-…142243, cGAN-KD + k…ent~cutmix: ")
    drawing.draw_without_rendering()
    assert all(text.get_window_extent().x1 < drawing.bbox.width for text in drawing.axes[0].texts)
    assert {text.split(",")[0] for text in texts} == {"…autumn-…142243", "…spring-…142243"}
