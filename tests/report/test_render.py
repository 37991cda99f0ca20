"""The page of a run: whole, self-contained, escaped, and there even where parts of the run are missing."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cgankd.core.errors import UserError
from cgankd.report import sections, sections_search, table
from cgankd.report.blocks import Note
from cgankd.report.made_from import is_current
from cgankd.report.render import render
from cgankd.report.run import read
from cgankd.tasks import CircularRegression

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
BAD = '<img src=x onerror="1">$x_$'
SECTIONS = (
    "comparison", "data", "generator", "subsampling", "filter", "quality", "copies", "curves", "cost", "theory",
    "recipe",
)  # fmt: skip


def text_of(page: Path) -> str:
    """The page as read: entities resolved, tags gone."""
    return html.unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


class Balanced(HTMLParser):
    """Raises where tags do not close in order."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "!doctype"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory, make_results: Results, write_run: Write) -> Path:
    """A whole run of classification, with an ablation, a warning, and names that would be elements of the page."""
    warnings = ["class <b>3</b> & others are rare"]
    found = make_results(
        "classification", ablation=True, warnings=warnings, recipe=BAD, dataset=BAD, description=BAD, notes=[BAD]
    )
    found["task_settings"]["class_names"][0] = found["bins"][0] = BAD
    found["rows"][2]["method"] = found["rows"][2]["network"] = BAD
    return render(write_run(tmp_path_factory.mktemp("run") / "classes", found))


@pytest.fixture(scope="module")
def scalars(tmp_path_factory: pytest.TempPathFactory, make_results: Results, write_run: Write) -> Path:
    """A whole run of regression."""
    return render(write_run(tmp_path_factory.mktemp("run") / "scalars", make_results("regression")))


@pytest.mark.parametrize("page", ["classes", "scalars"])
def test_the_page_holds_every_figure_of_the_table(page: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(page)
    results = json.loads((path.parent / "results.json").read_text())
    shown = text_of(path)
    for row in table.rows(results):
        for cell in table.cells(row):
            assert cell in shown, cell


@pytest.mark.parametrize("page", ["classes", "scalars"])
def test_the_page_loads_nothing_and_is_well_formed(page: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(page).read_text(encoding="utf-8")
    without_images = re.sub(r'"data:image/png;base64,[A-Za-z0-9+/=]*"', '""', source)
    assert not re.search(r"://|<script [^>]|<link|@import|src=\"//|fetch|import\(", without_images)
    assert source.count("<script>") == 1
    assert all(found.startswith(("data:", "#")) for found in re.findall(r'(?:src|href)="([^"]*)"', source))
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", source))
    assert len(source) < 3_000_000
    parser = Balanced()
    parser.feed(source)
    assert parser.open == []
    for anchor in SECTIONS:
        assert source.count(f'id="{anchor}"') == 1
    ids = re.findall(r' id="([^"]*)"', source)
    assert len(ids) == len(set(ids))


def test_figures_follow_the_colour_scheme(classes: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", classes.read_text(encoding="utf-8"), flags=re.S)
    assert len(drawings) >= 12
    for drawing in drawings:
        assert "var(--" in drawing
        assert re.match(r'<svg role="img" aria-label="[^"]+" viewBox="0 0 360 ', drawing)
        assert not {"#000000", "#ffffff"} & set(re.findall(r"#[0-9a-f]{6}\b", drawing))


def test_warnings_stand_before_the_headline_and_are_escaped(classes: Path) -> None:
    source = classes.read_text(encoding="utf-8")
    assert source.index("class &lt;b&gt;3&lt;/b&gt; &amp; others") < source.index('class="headline')


def test_regression_shows_the_filter_in_the_labels_unit(scalars: Path) -> None:
    shown = text_of(scalars)
    assert "cut-off: 5.58" in shown  # 0.031 of a range of 180 degrees
    assert "|prediction − label|, degrees" in shown
    assert "0.7-quantile, taken over all labels" in shown
    assert "Their label is then replaced by the teacher's prediction." in shown


@pytest.mark.long
def test_predictions_of_a_label_that_wraps_may_be_outside_its_range(
    tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    found = make_results("regression", bare=True)
    outside = "drawn on the shorter way round, also outside its range"
    assert outside not in text_of(render(write_run(tmp_path / "line", found)))
    found["task_settings"] = CircularRegression(0.0, 180.0, "degrees").to_json()
    assert outside in text_of(render(write_run(tmp_path / "circle", found)))


def test_on_paper_a_table_may_be_split_and_its_heading_stays_with_it(classes: Path) -> None:
    paper = classes.read_text(encoding="utf-8").partition("@media print {")[2].partition("</style>")[0]
    assert "h2, h3 { break-after: avoid; }" in paper
    assert ".scroll { overflow: visible; }" in paper
    assert "tr { break-inside: avoid; }" in paper


@pytest.mark.parametrize(
    ("by", "said"), [("bin", "for each label bin separately"), ("label", "for each label separately")]
)
def test_what_each_cut_off_is_for(tmp_path: Path, make_results: Results, write_run: Write, by: str, said: str) -> None:
    run = write_run(tmp_path / "run", make_results("regression"))
    results, artifact = run / "results.json", run / "artifacts" / "synthesis-0" / "artifact.json"
    found, kept = json.loads(results.read_text()), json.loads(artifact.read_text())
    found["synthesis"]["filter_by"] = by  # the recipe's word, which no artifact has
    kept["summary"]["thresholds"] = [0.03, 0.04]
    results.write_text(json.dumps(found))
    artifact.write_text(json.dumps(kept))
    notes = [block.text for block in sections.filtering(read(run)).blocks if isinstance(block, Note)]
    assert any(f"0.7-quantile, taken {said}." in note for note in notes)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, make_results: Results, write_run: Write) -> None:
    run = write_run(tmp_path / "run", make_results("regression", bare=True), stages=False)
    (run / "report.html").mkdir()  # a folder in the page's place
    with pytest.raises(UserError, match="can't be written"):
        render(run)
    assert sorted(path.name for path in run.iterdir()) == ["report.html", "results.json"]


@pytest.mark.long
def test_the_same_run_gives_the_same_bytes(classes: Path) -> None:
    before = classes.read_bytes()
    assert render(classes.parent).read_bytes() == before
    assert not [path for path in classes.parent.iterdir() if path.name.startswith(".")]


def test_names_are_escaped_everywhere(classes: Path) -> None:
    source = classes.read_text(encoding="utf-8")
    assert "<img src=x" not in source
    assert "&lt;img src=x" in source


def test_a_run_of_results_alone_says_what_is_missing(tmp_path: Path, make_results: Results, write_run: Write) -> None:
    found = make_results("regression", seeds=1)
    for key in ("teacher", "generator", "ratio", "latency_ms", "seconds", "artifacts", "bins", "warnings"):
        del found[key]
    shown = text_of(render(write_run(tmp_path / "run", found, stages=False)))
    for said in (
        "no interval", "trained no generator", "did not subsample", "there is no filter to show", "no data artifact",
        "no training histories", "measured no latency", "no ablation", "The folder has no recipe.yaml",
        "did not measure generated images",
    ):  # fmt: skip
        assert said in shown, said


def test_the_line_of_the_control_is_named_where_there_is_one(
    tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    found = make_results("classification", bare=True)
    assert "The dashed line is the control. In a clear gain" in text_of(render(write_run(tmp_path / "run", found)))
    found["rows"] = [row | {"difference": None} for row in found["rows"] if row["method"] != "nokd_longer"]
    text = text_of(render(write_run(tmp_path / "alone", found, stages=False)))
    assert "one standard deviation to each side." in text
    assert "dashed line" not in text


@pytest.mark.long
def test_whose_images_a_page_shows_where_each_seed_has_its_own(
    tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    found = make_results("classification", bare=True)
    whose = "This page shows those of the first, seed 0"
    assert whose not in text_of(render(write_run(tmp_path / "one", found)))
    found |= {"vary": "everything", "teacher": found["teacher"] | {"test": 60.0, "values": [81.5, 38.5]}}
    text = text_of(render(write_run(tmp_path / "own", found)))
    assert whose in text
    assert "on real test images it is 81.5" in text  # of the teacher that saw these images


def test_damaged_artifacts_read_as_absent(tmp_path: Path, make_results: Results, write_run: Write) -> None:
    run = write_run(tmp_path / "run", make_results("classification", bare=True))
    (run / "artifacts/generator-0/artifact.json").write_text("{")
    (run / "artifacts/synthesis-0/samples.safetensors").write_bytes(b"cut off")
    (run / "artifacts/data-0/preview.safetensors").unlink()
    (run / "artifacts/ratio-0/artifact.json").unlink()
    for student in (run / "artifacts").glob("student-*"):
        shutil.rmtree(student)
    shown = text_of(render(run))
    assert "trained no generator" in shown
    assert "No kept images are stored." in shown
    assert "This page lacks what is in missing or damaged artifacts: " in shown
    assert not is_current(run / "report.html")  # so the next run of it, which makes them again, draws the page again


@pytest.mark.long
def test_many_classes_and_large_images_stay_small(tmp_path: Path, make_results: Results, write_run: Write) -> None:
    found = make_results("classification", seeds=2)
    names = [f"class number {place}" for place in range(30)]
    found["task_settings"]["class_names"] = found["bins"] = names
    for row in [*found["rows"], found["teacher"]]:
        row["per_bin"] = [None, *(80.0 + place % 7 for place in range(29))]
    page = render(write_run(tmp_path / "run", found, side=72))
    shown = text_of(page)
    assert page.stat().st_size < 3_000_000
    assert "Of 30, those where these methods differ most are shown." in shown
    assert "Only the 24 lowest are shown." in shown
    assert "mean that the splits differ. Of 30 labels, 24 are shown." in shown


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path, make_results: Results) -> None:
    with pytest.raises(UserError, match=r"absent does not exist; needed"):
        render(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no results\.json"):
        render(tmp_path)
    target = tmp_path / "results.json"
    for content, said in (
        ("{", "is not a JSON file"),
        ("[]", "lacks metric"),
        ('{"rows": []}', "lacks metric"),
        (json.dumps(make_results("regression") | {"rows": []}), "at least one row"),
        (json.dumps(make_results("regression") | {"rows": [{"method": "kd"}]}), "row 0 lacks mean, values"),
        (json.dumps(make_results("regression") | {"task_settings": 3}), "does not describe a task"),
    ):
        target.write_text(content)
        with pytest.raises(UserError, match=said) as caught:
            render(tmp_path)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_a_search_tried_is_a_section(make_results: Results, write_run: Write, tmp_path: Path) -> None:
    trials = [
        {"setting": "start", "value": None, "score": 5.25},
        {"setting": "rho", "value": 0.5, "score": 4.75},
        {"setting": "labels", "value": "distinct", "score": 6.5},
    ]
    chosen = {"rho": 0.5, "labels": "even", "images": 800}
    found = make_results("regression", bare=True) | {
        "search": {"chosen": chosen, "control": 5.5, "score": 4.75, "helps": True, "trials": trials}
    }
    text = text_of(render(write_run(tmp_path / "run", found, stages=False)))
    for said in ("4.75", "6.5", "best", "the control", "filter's quantile 0.5", "Better than no generated images"):
        assert said in text
    assert text.count("best") >= 1
    found["search"]["helps"] = False
    note = sections_search.searched(read(write_run(tmp_path / "again", found, stages=False))).blocks[0]
    assert isinstance(note, Note)
    assert "Not better than no generated images" in note.text


def test_a_run_without_generated_images_has_no_sections_about_them(
    make_results: Results, write_run: Write, tmp_path: Path
) -> None:
    found = make_results("classification", bare=True)
    found["rows"] = [row for row in found["rows"] if not row["fake_images"]]
    del found["generator"], found["ratio"]
    page = render(write_run(tmp_path / "run", found, stages=False))
    source, shown = page.read_text(encoding="utf-8"), text_of(page)
    for anchor in ("generator", "subsampling", "filter", "quality", "copies", "theory"):
        assert f'id="{anchor}"' not in source
        assert f'href="#{anchor}"' not in source
    assert shown.count("rows such as cgan+fm in compare.methods add some") == 1
    assert "no ablation" not in shown


@pytest.mark.parametrize("file", ["results.json", "recipe.yaml", "ablation.json", "student.onnx", "report.html"])
def test_a_page_is_current_until_something_that_it_shows_changes(classes: Path, tmp_path: Path, file: str) -> None:
    page = tmp_path / "report.html"
    for source in ("results.json", "recipe.yaml", "report.html"):
        shutil.copy(classes.parent / source, tmp_path)
    assert is_current(page)
    changed = tmp_path / file
    if changed == page:
        page.write_text("<!doctype html>")
    else:
        changed.write_text((changed.read_text() if changed.is_file() else "") + " ")
    assert not is_current(page)
    page.unlink()
    assert not is_current(page)
