"""Tables of many runs: which cells there are, their numbers as text, the sign test, and the ablation's figures."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from cgankd import distill
from cgankd.config import recipe
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.progress import SILENT
from cgankd.experiments import ablation, cells, dumbbells, gains_text, table, text
from cgankd.experiments import ablation_page as figures
from cgankd.experiments.cells import Cell, grid
from cgankd.experiments.executors import Executor
from cgankd.metrics import statistics
from cgankd.pipeline import comparisons, preflight
from cgankd.report import label_curve
from cgankd.report.figures import LIGHT
from cgankd.report.render import render
from cgankd.training.faults import NotFinite

BLOCKS = ["data.train_size=60", "data.train_size=90"]


def results(
    name: str = "digits", gain: float = 2.0, higher: bool = True, seeds: tuple[int, ...] = (0, 1), **changes: Any
) -> dict[str, Any]:
    """results.json of a run whose every figure is known; ``gain`` is what cGAN-KD adds to the control and to KD."""
    sign = 1 if higher else -1
    base = {
        "nokd": 70.0,
        "nokd_longer": 80.0,
        "kd": 84.0,
        "cgan": 80.0 + sign * gain,
        "cgan_kd": 84.0 + sign * gain,
    }
    rows = []
    for method, mean in base.items():
        spread = 1.5 if method.startswith("cgan") else 0.5  # so the paired differences are gain -1 and gain +1
        values = [mean - spread, mean + spread][: len(seeds)]
        rows.append({
            "method": method, "network": "s", "parameters": 7, "steps": 5, "real_images": 60,
            "fake_images": 40 * method.startswith("cgan"), "values": values, "mean": sum(values) / len(values),
            "std": spread * math.sqrt(2) if len(seeds) > 1 else None, "difference": None,
        })  # fmt: skip
    return {
        "recipe": name, "description": "", "dataset": f"{name} set", "task": "classification", "metric": "accuracy",
        "unit": "%" if higher else "years", "higher_is_better": higher, "seeds": list(seeds), "vary": "student",
        "control": "nokd_longer", "rows": rows, "warnings": ["All is short."],
        "task_settings": {"type": "classification", "class_names": ["a", "b"]},
        "teacher": {"network": "big", "parameters": 99, "trained_on": "pool", "test": 90.0, "values": [90.0]},
        **changes,
    }  # fmt: skip


def four(**changes: Any) -> tuple[list[Cell], list[dict[str, Any] | None]]:
    made = grid(["digits"], [], ["cnn8", "cnn16"], BLOCKS)
    return made, [results(**changes) for _ in made]


# --- cells --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "parts"),
    [
        ("", []),
        ("a.b=1", ["a.b=1"]),
        (" a=1  b=2 ", ["a=1", "b=2"]),
        ("a=1,b=2", ["a=1", "b=2"]),
        ("seeds=[0, 1], a=x", ["seeds=[0, 1]", "a=x"]),
        ("seeds=[0,1] student.network=my_net:make", ["seeds=[0,1]", "student.network=my_net:make"]),
    ],
)
def test_overrides_in_a_group(group: str, parts: list[str]) -> None:
    assert cells.split_overrides(group) == parts


def test_a_cell_for_every_student_and_setting() -> None:
    made = grid(["digits", "fashion"], ["seeds=[4]"], ["cnn8", "cnn16"], BLOCKS)
    expected = list(itertools.product(["digits", "fashion"], BLOCKS, ["cnn8", "cnn16"]))
    assert [(cell.recipe.name, cell.setting, cell.student) for cell in made] == expected
    assert [cell.recipe.data.train_size for cell in made] == [60, 60, 90, 90] * 2
    assert all(cell.recipe.seeds == (4,) and not cell.recipe.compare.ablation for cell in made)
    assert len({cell.folder for cell in made}) == 8
    (alone,) = grid(["digits"], ["seeds=[4]"], ["cnn16"], BLOCKS[1:])
    assert alone.folder == made[3].folder  # a table that grows keeps its cells


def test_without_students_and_settings_the_recipe_alone_and_ablation_on_demand() -> None:
    (cell,) = grid(["fashion"], ["compare.ablation=true"], [], [])
    assert cell.recipe == recipe.load("fashion", ["compare.ablation=true"])
    assert (cell.student, cell.setting) == ("cnn16", "")


@pytest.mark.parametrize(
    ("students", "settings"), [(["cnn8", "cnn8"], []), ([], ["seeds=[0]", " seeds=[0]"]), (["cnn8"], ["a", "b"])]
)
def test_a_cell_that_stands_twice_or_a_group_that_is_none_is_refused(students: list[str], settings: list[str]) -> None:
    with pytest.raises(UserError, match=r"is given twice|not of the form key=value"):
        grid(["digits"], [], students, settings)


def test_methods_are_compared_both_ways_in_place_of_the_recipe_s_rows() -> None:
    (cell,) = grid(["digits"], [], [], [], ["dkd", "kd+crd"])
    assert cell.recipe.rows == ("nokd_longer", "cgan", "dkd", "cgan+dkd", "kd+crd", "cgan+kd+crd")
    assert cell.folder == grid(["digits"], [], [], [])[0].folder  # a table that grows keeps its cells


@pytest.mark.long
def test_all_methods_are_those_that_serve_the_task_as_they_are_published() -> None:
    digits = ["data.train_size=60"]
    of_classes, of_scalars = (
        grid(["digits"], [*digits, *more], [], [], ["all", "kd+crd"])[0].recipe.rows
        for more in ([], ["data.source=rotated-fashion", "data.turns=1"])
    )
    assert {"kd+sskd", "cgan+kd+sskd", "kd+kdiga", "dkd", "cgan+dkd", "kd+crd"} <= set(of_classes)
    assert {"sskd", "kdiga", "tbr"} & set(of_classes) == set()
    assert {"tbr", "cgan+tbr"} <= set(of_scalars)
    assert {"dkd", "kd+sskd"} & set(of_scalars) == set()
    methods = [name for name in of_classes[2:] if not name.startswith("cgan+")]
    served = {name for name, method in distill.METHODS.items() if "classification" in method.tasks}
    assert {distill.parts(name)[-1] for name in methods} == served
    assert comparisons.pairs(of_classes) == [("cgan", "nokd_longer"), *((f"cgan+{name}", name) for name in methods)]


@pytest.mark.long
def test_what_one_cell_cannot_run_is_left_out_of_all_with_why() -> None:
    made = grid(["digits"], ["data.train_size=60"], ["cnn8", "vgg8"], [], ["all"])
    assert made[0].recipe.rows == made[1].recipe.rows
    wider, between = made[0].left_out  # no VGG is wider at its end than VGG-8, and the teacher is smaller
    assert wider.startswith("flow: method 'flow' needs a wider network of the student's family")
    assert between.startswith("takd: method 'takd' needs a network between student and teacher")
    assert not {"flow", "takd"} & set(made[0].recipe.rows)
    assert f"- digits: {wider}" in text.as_markdown(table.summary(made, [None, None]))


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path) -> None:
    def refused(out: Path, said: str, *names: str, **more: Any) -> None:
        with pytest.raises(UserError, match=said):
            table.make_table(names, out=out, **more)

    refused(
        tmp_path / "new", r"network 'resnett8' is not known \(did you mean", "digits", students=["cnn8", "resnett8"]
    )
    refused(tmp_path / "new", r"holds 'krd', which is not known \(did you mean", "digits", methods=["kd", "krd"])
    for row in ("augment", "cgan_kd", "cgan+kd"):
        refused(tmp_path / "new", f"--methods {re.escape(row)}: a row, not a", "digits", methods=[row])
    refused(
        tmp_path / "new",
        r"its metric is mae.*accuracy %",
        "digits",
        settings=["seeds=[0]", "data.source=rotated-fashion"],
    )
    assert not (tmp_path / "new").exists()
    (tmp_path / "table.json").write_text(json.dumps({"recipes": ["digits", "fashion"]}))
    refused(tmp_path, "holds results of digits, not only of fashion; choose another", "fashion")
    (tmp_path / "table.json").write_text("[]")
    refused(tmp_path, r"table\.json is not a file of cgankd", "fashion")
    (tmp_path / "table.json").unlink()
    (tmp_path / "results.json").write_text(json.dumps({"recipe": "digits"}))  # of a run
    refused(tmp_path, "holds results of digits, not only of fashion", "fashion")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


# --- going through them -------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In the road's place: results whose gain is the number of runs so far. The names of the folders gone to."""
    gone: list[str] = []

    def run(
        settings: recipe.Recipe, out: Path, progress: object, *, deadline: float, artifacts: Path
    ) -> dict[str, Any]:
        assert out.parent == artifacts / "cells"
        assert not (out / "results.json").exists() or (out / "recipe.yaml").read_text() == settings.to_yaml()
        gone.append(out.name)
        if settings.student.network == "cnn24":
            raise NotFinite("the loss is nan", "a lower learning_rate may help")
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.yaml").write_text(settings.to_yaml())
        found = results(gain=float(len(set(gone))))
        for row in found["rows"]:
            row["real_images"] = settings.data.train_size or 10 * (settings.data.train_per_class or 0)
        (out / "results.json").write_text(json.dumps(found))
        return found

    monkeypatch.setattr(cells.run, "run", run)
    return gone


def test_a_table_stands_after_every_cell_and_says_what_is_missing(tmp_path: Path, runs: list[str]) -> None:
    made = grid(["digits"], [], ["cnn8", "cnn16", "cnn24"], [])
    with pytest.raises(TrainingError, match="digits, cnn24: the loss is nan; a lower"):
        table.make_table(["digits"], students=["cnn8", "cnn16", "cnn24"], out=tmp_path)
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["missing"] == ["digits, cnn24"]
    assert [cell["student"] for cell in found["tables"][0]["cells"]] == ["cnn8", "cnn16"]
    assert "1 missing" in (tmp_path / "table.md").read_text()
    assert runs == [cell.folder.removeprefix("cells/") for cell in made]

    def known(results: dict[str, Any] | None) -> bool:
        return results is not None

    again = cells.results_of(made[:2], tmp_path, "table.json", table.SILENT)
    assert [known(cell) for cell in next(again)] == [
        True,
        True,
    ]  # the first run again knows the second cell already
    again.close()
    changed = grid(["digits"], ["student.transfer_steps=7"], ["cnn8", "cnn16"], [])
    again = cells.results_of(changed, tmp_path, "table.json", table.SILENT)
    assert [known(cell) for cell in next(again)] == [False, False]  # of other settings: not known
    assert [known(cell) for cell in next(again)] == [True, False]
    again.close()


@pytest.mark.long
def test_files_of_earlier_settings_do_not_stay_where_a_table_is_stopped(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    table.make_table(["digits"], out=tmp_path)
    ablation.ablate("digits", out=tmp_path / "ablation")
    assert "missing" not in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table-digits.svg").is_file()
    assert (tmp_path / "ablation" / "ablation.html").is_file()
    monkeypatch.setattr(cells.run, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        table.make_table(["digits"], ["student.transfer_steps=7"], out=tmp_path)
    assert "1 missing" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "table-digits.svg").exists()
    with pytest.raises(KeyboardInterrupt):
        ablation.ablate("digits", ["student.transfer_steps=7"], out=tmp_path / "ablation")
    left = [path.name for path in (tmp_path / "ablation").iterdir() if path.name.startswith("ablation")]
    assert left == []


def test_workers_get_the_cells_whose_images_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "data.source=images.npz", "data.train_size=null", "data.val_size=10", "compare.methods=[nokd]",
        "compare.ablation=false", "teacher.network=cnn8", "student.network=cnn8", "metrics.generator=false",
        *(f"{network}.fit.{key}" for network in ("teacher", "student") for key in ("steps=1", "batch_size=4")),
    ]  # fmt: skip
    cell = Cell(recipe.load("digits", words))

    def images(seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 16, 16, 1), dtype=np.uint8)
        np.savez("images.npz", images=pixels, labels=np.arange(60) % 2)

    def known() -> Any:
        """The results that no worker is asked for."""
        return next(cells.results_of([cell], tmp_path / "out", "table.json", SILENT, executor=Executor(jobs=2)))[0]

    monkeypatch.setattr(cells, "_elsewhere", lambda cells, results, *others: iter([results]))
    images(0)
    [[made]] = cells.results_of([cell], tmp_path / "out", "table.json", SILENT)
    assert known() == made
    results = tmp_path / "out" / cell.folder / "results.json"
    whole = results.read_text()
    results.write_text(whole[:-100])  # a crash of the machine has cut it
    assert known() is None
    results.write_text(whole)
    assert known() == made
    images(1)
    assert known() is None
    assert not (tmp_path / "out" / cell.folder / "results.json").exists()


def test_one_table_in_a_folder_at_a_time(tmp_path: Path, runs: list[str]) -> None:
    made = grid(["digits"], [], ["cnn8", "cnn16"], [])
    first = cells.results_of(made, tmp_path, "table.json", table.SILENT)
    next(first)
    with pytest.raises(UserError, match="is in use by another run"):
        next(cells.results_of(made, tmp_path, "table.json", table.SILENT))
    first.close()
    assert len(list(cells.results_of(made, tmp_path, "table.json", table.SILENT))) == 2


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("better", "worse", "ties"), [(6, 0, 0), (5, 1, 2), (3, 3, 0), (1, 9, 1), (0, 0, 0)])
def test_gains_are_counted_and_no_more_is_claimed(better: int, worse: int, ties: int) -> None:
    counts = statistics.count_signs([0.5] * better + [-2.0] * worse + [0.0] * ties)
    assert counts == {"pairs": better + worse + ties, "better": better, "worse": worse}  # no p


def test_differences_of_very_small_scores_are_not_rounded_away() -> None:
    difference = statistics.paired_difference([1.5e-11, 2.0e-11], [1.0e-11, 1.2e-11])
    assert difference["values"] == pytest.approx([0.5e-11, 0.8e-11])
    assert difference["mean"] == pytest.approx(0.65e-11)
    assert statistics.paired_difference([0.1 + 0.2], [0.3])["mean"] == 0.0


def test_counts_in_words() -> None:
    seeds = {"pairs": 6, "better": 5, "worse": 1}
    task = {"task": "regression", "recipes": ["a"], "pairs": 3, "better": 1, "worse": 1, "seeds": seeds}
    methods = [{"of": "cgan", "to": "nokd_longer", "pairs": 2, "better": 1, "worse": 1}]
    sentences = gains_text.counts({"tasks": [task], "methods": methods})
    assert sentences[0] == (
        "regression (a), cGAN-KD + X against X: 3 pairs, 1 better, 1 worse, 1 equal. By seed: 5 of 6 better, 1 worse."
    )
    assert sentences[1] == "By method, better in: cgan 1 of 2."
    assert "not a test of significance" in sentences[2]
    assert gains_text.counts({"tasks": [], "methods": []}) == [
        "No method was compared alone and with generated images."
    ]


def test_better_is_lower_for_an_error() -> None:
    made = grid(["digits", "fashion"], [], ["cnn8", "cnn16"], [])
    found = [*[results("digits", gain=1.0)] * 2, *[results("fashion", gain=1.0, higher=False)] * 2]
    tests = table.summary(made, found)["counts"]
    assert [(test["of"], test["to"]) for test in tests["methods"]] == [("cgan", "nokd_longer"), ("cgan_kd", "kd")]
    for test in tests["methods"]:
        assert (test["pairs"], test["better"], test["worse"]) == (4, 4, 0)
    (test,) = tests["tasks"]  # both are called classification here
    assert (test["recipes"], test["pairs"], test["better"], test["worse"]) == (["digits", "fashion"], 8, 8, 0)
    assert test["seeds"] == {"pairs": 16, "better": 8, "worse": 0}  # of two seeds one gains 2, the other nothing


def test_what_a_method_sees_of_generated_images_alone_is_nothing_in_the_row_without() -> None:
    names = comparisons.both_ways(["kd", "kd+rkd@fake", "sp@fake"])
    assert names == ["nokd_longer", "cgan", "kd", "cgan+kd", "cgan+kd+rkd@fake", "cgan+sp@fake"]
    assert comparisons.pairs(names) == [
        ("cgan", "nokd_longer"), ("cgan+kd", "kd"), ("cgan+kd+rkd@fake", "kd"), ("cgan+sp@fake", "nokd_longer"),
    ]  # fmt: skip
    preflight.check_names(recipe.load("digits", [f"compare.methods=[{','.join(names)}]"]))


def test_every_method_is_paired_with_itself_and_each_task_has_its_own_votes() -> None:
    """Counts by plain loops over numbers that are drawn at random."""
    rng = np.random.default_rng(0)
    made = grid(["digits", "rotated-fashion"], [], ["cnn8", "cnn16"], [])
    names = comparisons.both_ways(["kd", "dkd", "kd+crd"])
    found: list[dict[str, Any]] = []
    votes: dict[str, list[float]] = {"classification": [], "regression": []}
    seeds: dict[str, list[float]] = {"classification": [], "regression": []}
    for task in ("classification", "classification", "regression", "regression"):
        higher = task == "classification"
        values = {name: rng.normal(80.0, 3.0, 3) for name in names}
        result = results("digits", higher=higher, seeds=(0, 1, 2), task=task)
        first = result["rows"][0]
        result["rows"] = [
            {**first, "method": name, "values": v.tolist(), "mean": v.mean(), "std": v.std(ddof=1)}
            for name, v in values.items()
        ]
        found.append(result)
        for to, of in [("nokd_longer", "cgan"), *((x, f"cgan+{x}") for x in ("kd", "dkd", "kd+crd"))]:
            gained = (values[of] - values[to]) * (1 if higher else -1)
            votes[task].append(gained.mean())
            seeds[task].extend(gained)
    whole = table.summary(made, found)
    for test in whole["counts"]["tasks"]:
        own, single = votes[test["task"]], seeds[test["task"]]
        assert (test["pairs"], test["better"]) == (8, sum(vote > 0 for vote in own))
        assert test["seeds"] == {
            "pairs": 24,
            "better": sum(s > 0 for s in single),
            "worse": sum(s < 0 for s in single),
        }
    assert [test["pairs"] for test in whole["counts"]["methods"]] == [4] * 4
    written = text.as_markdown(whole)
    unhelped = written.partition("## Not better with generated images")[2]
    assert unhelped.count("\n- ") == sum(vote <= 0 for of_task in votes.values() for vote in of_task) > 0
    assert "By method, better in: cgan " in written
    assert "p = " not in written
    assert "classification (digits), cGAN-KD + X against X: 8 pairs, " in written


def test_gains_are_paired_by_seed() -> None:
    cell = table.summary(*four())["tables"][0]["cells"][0]
    half = 12.7062047 * (math.sqrt(2) / math.sqrt(2))  # t(.975, 1) * standard error of the differences 1 and 3
    for gain, (of, to) in zip(cell["gains"], [("cgan", "nokd_longer"), ("cgan_kd", "kd")], strict=True):
        assert (gain["of"], gain["to"], gain["better"], gain["worse"]) == (of, to, 2, 0)
        assert gain["values"] == [1.0, 3.0]
        assert [gain["mean"], gain["low"], gain["high"]] == pytest.approx([2.0, 2.0 - half, 2.0 + half])


# --- text ---------------------------------------------------------------------------------------------------------


def test_the_table_reads_like_the_papers() -> None:
    made, found = four()
    found[3] = None
    lines = text.as_markdown(table.summary(made, found)).splitlines()
    grids = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    scores = {
        "nokd": "70.0 ± 0.7", "nokd_longer": "80.0 ± 0.7", "kd": "84.0 ± 0.7", "cgan": "82.0 ± 2.1",
        "cgan_kd": "86.0 ± 2.1", "teacher big": "90.0",
    }  # fmt: skip
    assert grids[0] == ["method", BLOCKS[0], "", BLOCKS[1], ""]
    assert grids[2:9] == [
        ["", "cnn8", "cnn16", "cnn8", "cnn16"],
        *([name, score, score, score, "…"] for name, score in scores.items()),
    ]
    gain, several = "+2.0 [−10.7, +14.7]", list(itertools.product(["cnn8", "cnn16"], BLOCKS))
    assert grids[9] == [
        "X", "student", "setting", "X alone", "cGAN-KD + X", "difference, points [95% interval]", "better in"
    ]  # fmt: skip
    assert [line[:3] for line in grids[11:]] == [
        [x, student, block]
        for x in ("labels alone", "kd")
        for student, block in [
            several[0],
            several[2],
            several[1],
        ]
    ]
    assert [line[3:] for line in grids[11:]] == [
        *[["80.0 ± 0.7", "82.0 ± 2.1", gain, "2 of 2 seeds"]] * 3,
        *[["84.0 ± 0.7", "86.0 ± 2.1", gain, "2 of 2 seeds"]] * 3,
    ]
    assert len({len(line) for line in lines if line.startswith("|")}) == 2  # two tables, each aligned
    assert lines[-1] == "- digits, cnn16, data.train_size=90"
    for said in ("accuracy, % on the test split", "- All is short.", "over 2 seeds", "6 pairs, 6 better, 0 worse",
                 "- The teacher was trained on the whole pool.", "By seed: 12 of 12 better, 0 worse."):  # fmt: skip
        assert said in "\n".join(lines), said
    assert "Not better with" not in "\n".join(lines)


def test_a_table_has_columns_for_its_cells_only() -> None:
    networks = ["student.network=cnn8", "student.network=cnn16"]
    made = grid(["digits"], [], [], networks)
    grids = [line for line in text.as_markdown(table.summary(made, [results(), None])).splitlines() if "|" in line]
    assert [[cell.strip() for cell in line[1:-1].split("|")] for line in (grids[0], *grids[2:4])] == [
        ["method", *networks],
        ["", "cnn8", "cnn16"],
        ["nokd", "70.0 ± 0.7", "…"],
    ]


def test_one_seed_one_setting_and_rows_that_a_recipe_leaves_out() -> None:
    made = grid(["digits"], [], ["cnn8", "cnn16"], [])
    found: list[dict[str, Any]] = [results(seeds=(0,)), results(seeds=(0,), warnings=["Alone."], gain=-3.0)]
    found[1]["rows"] = found[1]["rows"][:-1]
    written = text.as_markdown(table.summary(made, found))
    grids = [[cell.strip() for cell in line[1:-1].split("|")] for line in written.splitlines() if line[:1] == "|"]
    assert grids[0] == ["method", "cnn8", "cnn16"]  # no line of settings
    assert grids[5:7] == [["cgan", "80.5", "75.5"], ["cgan_kd", "84.5", "–"]]
    assert grids[-2:] == [
        ["labels alone", "cnn16", "79.5", "75.5", "−4.0 (no interval)", "0 of 1 seed"],
        ["kd", "cnn8", "83.5", "84.5", "+1.0 (no interval)", "1 of 1 seed"],
    ]
    assert written.endswith(
        "## Not better with generated images\n\n"
        "- digits, cnn16: labels alone, −4.0 points (no interval), better in 0 of 1 seed\n"
    )
    assert "- cnn16: Alone." in written
    assert "- cnn8: All is short." in written
    assert "missing" not in written


def test_a_table_that_pairs_nothing_says_so() -> None:
    made, found = four()
    for result in found:
        assert result is not None
        result["rows"] = result["rows"][:2]
    written = text.as_markdown(table.summary(made, found))
    assert "No method was compared alone and with generated images." in written
    assert "What generated images add" not in written
    assert "intervals" not in written
    assert "share the teacher: their cells are not independent" in written


def test_csv_reads_back_as_the_results() -> None:
    made, found = four(gain=1 / 3)
    lines = list(csv.DictReader(io.StringIO(text.comma_separated(table.summary(made, found)))))
    assert len(lines) == 4 * (5 + 1)  # rows and the teacher
    by_place = {(line["student"], line["setting"], line["method"]): line for line in lines}
    for cell, result in zip(made, found, strict=True):
        assert result is not None
        for row in result["rows"]:
            line = by_place[cell.student, cell.setting, row["method"]]
            assert [float(value) for value in line["values"].split()] == row["values"]
            assert (float(line["mean"]), float(line["std"])) == (row["mean"], row["std"])
            assert (line["metric"], line["unit"], line["seeds"], line["network"]) == (
                "accuracy",
                "%",
                "0 1",
                cell.student,
            )
            assert int(line["fake_images"]) == row["fake_images"]
        gain = by_place[cell.student, cell.setting, "cgan"]
        assert (gain["gain_over"], gain["gain_seeds_better"]) == ("nokd_longer", "1")
        assert float(gain["gain"]) == pytest.approx(1 / 3)
        assert by_place[cell.student, cell.setting, "kd"]["gain_over"] == ""
        teacher = by_place[cell.student, cell.setting, "teacher"]
        assert (teacher["network"], teacher["mean"], teacher["std"], teacher["steps"]) == ("big", "90.0", "", "")


def test_names_with_bars_and_commas_break_no_table() -> None:
    made, found = four(warnings=[])
    for result in found:
        assert result is not None
        result["teacher"] |= {"network": 'a|b,"c"'}
    whole = table.summary(made, found)
    assert r"teacher a\|b" in text.as_markdown(whole)
    assert {line["network"] for line in csv.DictReader(io.StringIO(text.comma_separated(whole)))} >= {'a|b,"c"'}


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("higher", [True, False])
def test_a_picture_has_a_line_per_method_from_the_one_mean_to_the_other(higher: bool) -> None:
    made = grid(["digits"], [], ["cnn8", "cnn16"], [])
    found = [results(higher=higher), results(higher=higher)]
    for result, gain in zip(found, (3.0, -9.0), strict=True):  # cgan_kd gains less than cgan does, and loses in one
        result["rows"][4]["mean"] = 84.0 + (gain - 1.0 if higher else 1.0 - gain)
        result["rows"][4]["values"] = [result["rows"][4]["mean"]] * 2
    figure = dumbbells.dumbbells(table.summary(made, found)["tables"][0])
    assert figure is not None
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["labels alone", "kd"]
    assert [axes.get_title(loc="right") for axes in figure.axes] == ["cnn8", "cnn16"]

    def drawn(axes: Axes, colour: str) -> list[tuple[list[float], list[float]]]:
        lines = [line for line in axes.lines if line.get_color() == LIGHT[colour] and line.get_linestyle() == "-"]
        found = [tuple(np.asarray(data, dtype=float).tolist() for data in line.get_data()) for line in lines]
        return [(x, y) for x, y in found if x]  # without the legend's

    sign = 1.0 if higher else -1.0
    control = ([80.0, 80.0 + 2.0 * sign], [0.0, 0.0])
    assert drawn(first, "blue") == [control, ([84.0, 84.0 + 2.0 * sign], [-1.0, -1.0])]
    assert drawn(first, "red") == []
    assert drawn(second, "blue") == [control]
    assert drawn(second, "red") == [([84.0, 84.0 - 10.0 * sign], [-1.0, -1.0])]


def test_titles_of_panels_do_not_run_into_each_other() -> None:
    settings = [f"student.transfer_steps={steps} student.real_share=0.{steps} data.train_size=400" for steps in (5, 7)]
    made = grid(["digits"], [], ["cnn8", "cnn16"], settings)
    figure = dumbbells.dumbbells(table.summary(made, [results() for _ in range(4)])["tables"][0])
    assert figure is not None
    figure.draw_without_rendering()
    titles = [axes.title if axes.get_title() else axes._right_title for axes in figure.axes]
    ends = [(title.get_window_extent().x0, title.get_window_extent().x1) for title in titles]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))
    lines = max(title.get_text().count("\n") for title in titles)
    assert lines
    assert figure.get_figheight() == pytest.approx(1.0 + 2 * dumbbells.LINE + 0.2 * lines)
    assert titles[0].get_text().replace("\n", " ") == f"cnn8, {settings[0]}"


def test_pictures_lie_beside_the_table_where_something_is_compared(tmp_path: Path) -> None:
    made, found = four()
    dumbbells.draw(table.summary(made, found), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"table-digits.png", "table-digits.svg"}
    for result in found:
        assert result is not None
        result["rows"] = result["rows"][:2]
    dumbbells.draw(table.summary(made, found), tmp_path)
    assert list(tmp_path.iterdir()) == []  # those of the rows before would pass for these


# --- ablation -----------------------------------------------------------------------------------------------------


def points(higher: bool = True, seeds: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    """ablation.json of M = 50, 200 and the recipe's own 100; 200 is missing."""
    made = [Cell(recipe.load("digits", [f"synthesis.images={m}"]), f"M{m}") for m in (100, 50, 200)]
    first = results(higher=higher, seeds=seeds)
    # the recipe's own cGAN-KD filters and does no more
    first["rows"].insert(3, {**first["rows"][3], "method": "cgan_filter"})
    return ablation.summary(made, [first, results(higher=higher, seeds=seeds, gain=1.0), None])


def test_accuracy_is_drawn_as_error() -> None:
    found = points()
    assert [(bar["method"], bar["mean"]) for bar in found["bars"]] == [
        ("nokd", 30.0), ("nokd_longer", 20.0), ("kd", 16.0), ("cgan_filter", 18.0), ("cgan", 18.0),
        ("cgan_kd", 14.0),
    ]  # fmt: skip
    assert [(point["images"], point["mean"]) for point in found["curve"]] == [(0, 20.0), (50, 19.0), (100, 18.0)]
    assert found["bars"][0]["values"] == [30.5, 29.5]
    assert found["bars"][0]["std"] == pytest.approx(math.sqrt(0.5))
    assert (found["teacher"], found["images"], found["missing"]) == (10.0, [50, 200], ["digits, cnn8, M200"])
    lines = list(csv.reader(io.StringIO(ablation.comma_separated(found))))[1:]
    assert [(line[0], line[1], line[2], float(line[5])) for line in lines[-3:]] == [
        ("curve", "nokd_longer", "0", 20.0), ("curve", "cgan", "50", 19.0), ("curve", "cgan", "100", 18.0),
    ]  # fmt: skip
    assert [float(value) for value in lines[0][4].split()] == [30.5, 29.5]


def test_an_error_is_drawn_as_it_is() -> None:
    found = points(higher=False)
    assert [bar["mean"] for bar in found["bars"]] == [70.0, 80.0, 84.0, 78.0, 78.0, 82.0]
    assert figures.error_name(found) == "accuracy, years"


def test_bars_start_at_zero_and_end_at_the_error() -> None:
    (axes,) = figures.bars(points()).axes
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [patch.get_x() for patch in drawn] == [0.0] * 6
    assert [patch.get_width() for patch in drawn] == [30.0, 20.0, 16.0, 18.0, 18.0, 14.0]
    assert axes.get_xlim()[0] == 0.0
    assert axes.get_xlabel() == "error, % (100 − accuracy)"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "student alone", "control", "plain KD", "+ filter", "cGAN-KD", "cGAN-KD + KD",
    ]  # fmt: skip


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_curve_starts_at_the_control(seeds: tuple[int, ...]) -> None:
    found = points(seeds=seeds)
    (axes,) = figures.curve(found).axes
    x, y = (np.asarray(data, dtype=float) for data in axes.lines[0].get_data())
    assert x.tolist() == [0, 50, 100]
    assert y.tolist() == [point["mean"] for point in found["curve"]]
    assert axes.get_ylim()[0] == 0.0
    figures.curve(found).canvas.draw()


def test_the_page_and_its_pictures(tmp_path: Path) -> None:
    found = points()
    (tmp_path / found["run"]).mkdir(parents=True)
    (tmp_path / found["run"] / "results.json").write_text(json.dumps(results()))
    (tmp_path / "ablation.json").write_text(json.dumps(found))
    page = figures.render(tmp_path).read_text()
    for said in ("This recipe's cGAN-KD is the bar “+ filter”.".replace("'", "&#39;"), "digits, cnn8, M200",
                 "cgankd ablate recipe.yaml --images 50,200"):  # fmt: skip
        assert said in page, said
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert set(before) == {
        "ablation.html",
        "ablation.json",
        *(f"ablation-{name}.{kind}" for name in ("bars", "images") for kind in ("png", "svg")),
    }
    with Image.open(tmp_path / "ablation-bars.png") as picture:
        assert picture.width == 1000  # 5 inches
    assert before["ablation-images.svg"].startswith(b"<?xml")
    figures.render(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_names_on_the_page_stay_text(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    found = points()
    found["warnings"], found["missing"] = [f"{bad} warned"], [f"{bad} missing"]
    shown = results(name=bad, description=bad)
    for row in shown["rows"]:
        row["network"] = bad
    (tmp_path / found["run"]).mkdir(parents=True)
    (tmp_path / found["run"] / "results.json").write_text(json.dumps(shown))
    (tmp_path / found["run"] / "recipe.yaml").write_text(f"name: {bad}")
    (tmp_path / "ablation.json").write_text(json.dumps(found))
    page = figures.render(tmp_path).read_text()
    assert "<script>alert" not in page
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    for said in (f"{escaped} warned", f"{escaped} missing", f"<h1>{escaped}</h1>", f"<td>{escaped}</td>"):
        assert said in page, said


def test_a_search_and_a_curve_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"digits: search chooses M itself; .*must be none"):
        ablation.ablate("digits", ["search=true"], images=["100"], out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_ablations_runs(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[Path] = Counter()
    monkeypatch.setattr(ablation, "render", lambda out: drawn.update([out]))
    found = ablation.ablate("digits", images=["0", "3000", "500", "2000", "500"], out=tmp_path)  # its own M is 2000
    assert [name.rsplit("-", 1)[0] for name in runs] == [
        "digits-cnn8-ablation", "digits-cnn8-synthesis.images=500", "digits-cnn8-synthesis.images=3000",
    ]  # fmt: skip
    assert drawn == {tmp_path: 3}
    assert [point["images"] for point in found["curve"]] == [0, 500, 2000, 3000]


def test_no_run_of_an_ablation_trains_a_student_again(tmp_path: Path, runs: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(recipe.load("digits", ["student.refit=true"]).to_yaml())
    ablation.ablate(str(tmp_path / "mine.yaml"), images=["500"], out=tmp_path / "out")
    made = [recipe.load(str(tmp_path / "out" / "cells" / name / "recipe.yaml")) for name in runs]
    assert [settings.student.refit for settings in made] == [False] * 2


def over_labels() -> dict[str, Any]:
    """An ablation of a recipe with 60 labels, and runs with 20 labels (finished) and 30 (not finished)."""
    few = results(gain=1.0)
    for row in few["rows"]:
        row["real_images"] = 20
    first = results()
    compared = ("nokd_longer", "cgan", "cgan_kd")
    own = Cell(recipe.load("digits"), "ablation")
    return {**ablation.summary([own], [first]), **ablation.over_labels(compared, [first, few, None])}


def test_the_rows_over_labels_are_those_of_the_recipe() -> None:
    assert ablation._compared("digits", ["compare.methods=[nokd, fm, cgan+fm]"]) == ("nokd_longer", "fm", "cgan+fm")
    defaults = ("nokd_longer", "augment", "kd", "fm", "cgan", "cgan_kd", "cgan+fm")
    assert ablation._compared("digits", ["compare.methods=auto"]) == defaults


def test_points_over_labels_are_errors_with_their_number_of_labels() -> None:
    found = over_labels()["labels"]
    assert [(point["labels"], point["method"], point["mean"]) for point in found] == [
        (20, "nokd_longer", 20.0), (20, "cgan", 19.0), (20, "cgan_kd", 15.0), (20, "teacher", 10.0),
        (60, "nokd_longer", 20.0), (60, "cgan", 18.0), (60, "cgan_kd", 14.0), (60, "teacher", 10.0),
    ]  # fmt: skip
    assert found[1]["values"] == [20.5, 17.5]
    lines = list(csv.reader(io.StringIO(ablation.comma_separated(over_labels()))))
    assert lines[0][-1] == "labels"
    assert [(line[1], line[-1], float(line[5])) for line in lines if line[0] == "labels"][:2] == [
        ("nokd_longer", "20", 20.0), ("cgan", "20", 19.0),
    ]  # fmt: skip


def test_the_figure_over_labels_has_a_line_for_each_method() -> None:
    found = over_labels()
    (axes,) = label_curve.figure(found["labels"], label_curve.error_name(found)).axes
    lines = {
        str(line.get_label()): line.get_ydata() for line in axes.lines if not str(line.get_label()).startswith("_")
    }
    assert {name: list(ends) for name, ends in lines.items()} == {
        "student alone, equal steps": [20.0, 20.0], "cGAN-KD": [19.0, 18.0], "cGAN-KD + KD": [15.0, 14.0],
        "the teacher": [10.0, 10.0],
    }  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("labelled training images", "error, % (100 − accuracy)")
    assert axes.get_xticks().tolist() == [20.0, 60.0]
    (_, grid) = label_curve.section(found).blocks
    assert [row[:2] for row in grid.rows] == [["20", "20.0\u00a0±\u00a00.7"], ["60", "20.0\u00a0±\u00a00.7"]]


def test_a_report_shows_the_figure_over_labels_of_its_folder(tmp_path: Path) -> None:
    assert label_curve.read(tmp_path) is None
    (tmp_path / "ablation.json").write_text(json.dumps({**over_labels(), "labels": []}))
    assert label_curve.read(tmp_path) is None
    (tmp_path / "ablation.json").write_text(json.dumps(over_labels()))
    (tmp_path / "results.json").write_text(json.dumps(results()))
    page = render(tmp_path).read_text(encoding="utf-8")
    assert 'id="labels-curve"' in page
    assert "labelled training images" in page


def test_runs_over_labels(tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "render", lambda out: None)
    rows = "compare.methods=[nokd_longer,kd,cgan]"
    found = ablation.ablate("digits", ["data.train_per_class=20", "data.train_size=null", rows],
                            labels=["80", "50", "80", "200"], out=tmp_path)  # fmt: skip
    assert [name.rsplit("-", 1)[0] for name in runs] == [
        "digits-cnn8-ablation", *(f"digits-cnn8-data.train_size={count}" for count in (50, 80, 200)),
    ]  # fmt: skip
    assert [point["labels"] for point in found["labels"]] == [50] * 4 + [80] * 4 + [200] * 4
    assert found["labels"][-2]["mean"] == 100 - 81  # of the recipe, 20 of each class: the first run, which gains 1
    assert found["missing"] == []


@pytest.mark.parametrize(
    ("option", "word", "allowed"),
    [
        *(("labels", word, "2 on, such as 50,100,200") for word in ("null", "many", "-5", "1", "2.5", "\u0665")),
        *(("images", word, "0 on, such as 1000,3000,10000") for word in ("many", "-5")),
    ],
)
def test_numbers_of_labels_or_images_that_are_refused(option: str, word: str, allowed: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        ablation.ablate("digits", **{option: ["50", word]}, out=tmp_path / "new")  # type: ignore[arg-type]
    sentence = f"--{option} {word!r} is not allowed; allowed: whole numbers from {allowed}"
    assert str(caught.value) == sentence
    assert not (tmp_path / "new").exists()


def test_more_labels_than_there_are_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="99999"):
        ablation.ablate("digits", labels=["50", "99999"], out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_teacher_without_a_score_stands_in_the_table_without_one() -> None:
    teacher = {"network": "p.csv", "parameters": None, "trained_on": "elsewhere", "values": []}
    assert (table._teacher(teacher)["mean"], table._teacher(teacher)["std"]) == (None, None)
