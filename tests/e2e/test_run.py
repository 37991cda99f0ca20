"""A whole run: what it writes, that it can be had again, and what a changed setting makes anew."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, Said, artifacts, environment, files, script, without_clocks
from safetensors.torch import load_file, save_file
from torch import nn

pytestmark = pytest.mark.xdist_group("finished")

METHODS = ["nokd", "nokd_longer", "kd", "cgan_raw", "cgan_subsample", "cgan_filter", "cgan_replace", "cgan",
           "cgan_kd"]  # fmt: skip
DOCUMENTED = {"task", "metric", "higher_is_better", "dataset", "seeds", "rows", "teacher", "synthesis", "seconds"}
ROW = {"method", "network", "parameters", "values", "mean", "std"}
SYNTHESIS = {"requested", "generated", "kept", "acceptance", "filter_quantile", "per_label"}


@pytest.fixture
def found(finished: tuple[Path, Said]) -> dict[str, Any]:
    return json.loads((finished[0] / "results.json").read_text())


def test_results_have_the_documented_fields(found: dict[str, Any]) -> None:
    assert set(found) >= DOCUMENTED
    assert found["task"] == "classification"
    assert found["metric"] == "accuracy"
    assert found["higher_is_better"] is True
    assert found["dataset"] == "digits"
    assert found["seeds"] == [0]
    assert [row["method"] for row in found["rows"]] == METHODS
    for row in found["rows"]:
        assert set(row) >= ROW
        assert row["network"] == "cnn8"
        assert len(row["values"]) == 1
        assert row["mean"] == row["values"][0]
        assert row["std"] is None
        assert 0 <= row["mean"] <= 100
    assert found["teacher"]["network"] == "cnn8"
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    assert set(found["seconds"]) == {
        "import", "describe_data", "train_network", "score_teacher", "train_generator", "train_density_ratio",
        "burn_in", "calibrate_filter", "make_images", "train_student", "score_student", "measure_generator",
        "find_worst_answers",
    }  # fmt: skip


def test_the_counts_of_the_synthesis_add_up(found: dict[str, Any]) -> None:
    made = found["synthesis"]
    assert set(made) >= SYNTHESIS
    assert made["requested"] == 200
    assert made["kept"] <= made["accepted"] <= made["generated"]
    assert made["acceptance"] == made["accepted"] / made["generated"]
    assert made["filter_quantile"] == 0.9
    assert [entry["label"] for entry in made["per_label"]] == [str(digit) for digit in range(10)]
    for name in ("requested", "generated", "accepted", "kept"):
        assert sum(entry[name] for entry in made["per_label"]) == made[name]


def test_what_the_run_said_and_wrote(finished: tuple[Path, Said], found: dict[str, Any]) -> None:
    out, said = finished
    for row in found["rows"]:
        lines = [line for line in said.out.splitlines() if line.startswith(f"{row['method']} ") and "(seed" not in line]
        (line,) = [line for line in lines if " %" in line]
        assert f" {row['mean']:.1f} % " in line
    assert "report.html" in said.out
    assert "This is a demonstration" in said.out
    assert said.err == ""
    page = (out / "report.html").read_text()
    assert page.startswith("<!")
    assert 'src="http' not in page
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", ".unchanged.json", "artifacts", "cache", "recipe.yaml", "report.html", "results.json", "status.json",
        "student.onnx", "tensorboard", "work",
    ]  # fmt: skip
    assert not list((out / "work").iterdir())
    assert not list(out.rglob("*.tmp"))


def test_every_compared_row_is_trained_for_as_many_steps(finished: tuple[Path, Said], found: dict[str, Any]) -> None:
    for row in found["rows"]:
        steps = 10 if row["method"] == "nokd" else 12
        assert row["steps"] == steps
        for folder in found["artifacts"]["students"][row["method"]]:
            fitted = json.loads((finished[0] / folder / "artifact.json").read_text())
            assert fitted["arguments"]["fit"]["steps"] == steps
            assert fitted["arguments"]["fit"]["batch_size"] == 64
            assert fitted["summary"]["history"][-1]["step"] == steps


@pytest.mark.long
def test_the_written_recipe_makes_the_same_numbers_elsewhere(
    finished: tuple[Path, Said], found: dict[str, Any], typed: Callable[..., Said], tmp_path: Path
) -> None:
    shutil.copy(finished[0] / "recipe.yaml", tmp_path / "copy.yaml")
    said = typed("run", "copy.yaml", "--out", "anew", "--quiet", "--no-report", "--no-export")
    assert said.code == 0, said.err
    anew = json.loads((tmp_path / "anew" / "results.json").read_text())
    assert without_clocks(anew) == without_clocks(found)
    assert (tmp_path / "anew" / "recipe.yaml").read_text() == (finished[0] / "recipe.yaml").read_text()


def test_run_again_makes_nothing_and_says_the_same(
    finished: tuple[Path, Said], again: Callable[..., Path], found: dict[str, Any]
) -> None:
    out = again()
    assert artifacts(out) == artifacts(finished[0])
    assert without_clocks(json.loads((out / "results.json").read_text())) == without_clocks(found)


def test_a_finished_run_again_draws_nothing_and_compiles_nothing(finished: tuple[Path, Said], tmp_path: Path) -> None:
    """Its command waits neither for the figures nor for modules that only a training needs."""
    shutil.copytree(finished[0], tmp_path / "out")
    (tmp_path / "tiny.yaml").write_text(TINY)
    heavy = "'lightning_fabric', 'matplotlib', 'scipy.special', 'torch._dynamo'"
    code = (
        "import sys; from cgankd.cli.main import main\n"
        "try: main()\n"
        f"finally: print(sorted({{{heavy}}} & set(sys.modules)), file=sys.stderr)"
    )
    words = ["run", "tiny.yaml", "--out", "out", "compare.ablation=true", "--track", "none", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[]\n"
    assert "report.html  (open it in a browser)" in done.stdout
    for name in ("results.json", "report.html", "recipe.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (finished[0] / name).read_bytes(), name


@pytest.mark.long
def test_report_prints_the_table_and_writes_the_page_again(
    finished: tuple[Path, Said], typed: Callable[..., Said], tmp_path: Path
) -> None:
    out = tmp_path / "moved"
    shutil.copytree(finished[0], out)
    (out / "report.html").unlink()
    said = typed("report", out)
    assert said.code == 0, said.err
    assert (out / "report.html").read_text() == (finished[0] / "report.html").read_text()
    table = said.out.partition("(open it in a browser)")[0].rstrip().splitlines()[:-1]
    assert len(table) > 12
    assert "\n".join(table) in finished[1].out


# --- what a changed setting makes anew ----------------------------------------------------------------------------


def made(before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    """How many artifacts of each stage are new. None that was there may have changed."""
    assert before.items() <= after.items()
    return Counter(name.rsplit("-", 1)[0] for name in after if name not in before)


# The keys that settings change are tested in tests/pipeline/test_keys.py, without training. Here: some, in real runs.
# Of eight students (cgan and cgan_filter are one: classes keep their labels) and three syntheses (raw, subsampled,
# subsampled and filtered).
@pytest.mark.parametrize(
    ("change", "new"),
    [
        pytest.param(
            "student.transfer_steps=13", {"train_student": 7, "score_student": 7, "find_worst_answers": 1},
            marks=pytest.mark.long,
        ),
        (
            "synthesis.filter.rho=0.8",
            {"make_images": 1, "train_student": 3, "score_student": 3, "measure_generator": 1},
        ),
        pytest.param(
            "generator.steps=13",
            {"train_generator": 1, "train_density_ratio": 1, "burn_in": 1, "calibrate_filter": 1, "make_images": 3,
             "train_student": 5, "score_student": 5, "measure_generator": 1}, marks=pytest.mark.long,
        ),
        pytest.param(
            "data.seed=1",
            {"describe_data": 1, "train_network": 1, "score_teacher": 1, "train_generator": 1,
             "train_density_ratio": 1, "burn_in": 1,
             "calibrate_filter": 1, "make_images": 3, "train_student": 8, "score_student": 8, "measure_generator": 1,
             "find_worst_answers": 1}, marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_a_change_makes_anew_what_depends_on_it_and_nothing_else(
    finished: tuple[Path, Said], again: Callable[..., Path], change: str, new: dict[str, int]
) -> None:
    assert made(artifacts(finished[0]), artifacts(again(change))) == new


@pytest.mark.long  # tests/pipeline/test_run_road.py has two seeds in a smaller run
def test_a_second_seed_stands_beside_the_first(
    found: dict[str, Any], finished: tuple[Path, Said], again: Callable[..., Path]
) -> None:
    out = again("seeds=[0,1]")
    new = made(artifacts(finished[0]), artifacts(out))
    new.pop("find_worst_answers", None)  # another row may be the best of two seeds
    assert new == {"train_student": 8, "score_student": 8}
    rows = json.loads((out / "results.json").read_text())["rows"]
    for row, alone in zip(rows, found["rows"], strict=True):
        first, second = row["values"]
        assert first == alone["values"][0]
        assert row["mean"] == pytest.approx((first + second) / 2)
        assert row["std"] == pytest.approx(abs(first - second) / 2**0.5)
    assert any(row["values"][0] != row["values"][1] for row in rows)


@pytest.mark.parametrize(
    "change",
    [
        "student.fit.stepz=3",
        "data.source=nowhere",
        "student.network=resnett8",
        "teacher.weights=nowhere.safetensors",
    ],
)
def test_a_finished_run_stays_as_it_is(
    finished: tuple[Path, Said], typed: Callable[..., Said], tiny: Path, change: str
) -> None:
    out = tiny.parent / "out"
    shutil.copytree(finished[0], out)
    before = files(out)
    typed("run", tiny, change, "--quiet", "--out", out).sentence()
    assert files(out) == before


# --- one folder, one process --------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = [script(), "run", "tiny.yaml", "teacher.fit.steps=100000", "--quiet", "--out", "out"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE) as first:
        try:
            while not list(tmp_path.glob("out/work/train_network-*")):
                assert first.poll() is None, first.stderr.read()  # type: ignore[union-attr]
                time.sleep(0.01)
            before = files(tmp_path / "out")
            sentence = typed("run", "tiny.yaml", "--out", "out").sentence()
            changed = dict(files(tmp_path / "out").items() ^ before.items())
            assert set(changed) <= {"status.json"}  # which the first one writes every second
        finally:
            first.kill()
    assert "out is in use by another run" in sentence


# --- a network and weights of the user's own ----------------------------------------------------------------------

OWN = """
from torch import nn

def make(in_channels, num_outputs, image_size):
    return nn.Sequential(nn.Conv2d(in_channels, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, num_outputs))
"""


def test_a_network_in_the_current_folder_is_the_student_and_its_code_part_of_the_key(
    tmp_path: Path, typed: Callable[..., Said]
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "own_student.py").write_text(OWN)
    words = ["run", "tiny.yaml", "student.network=own_student:make", "compare.methods=[nokd]", "--out", "out",
             "--no-report", "--no-export"]  # fmt: skip
    said = typed(*words)
    assert said.code == 0, said.err
    assert said.out.count("this run calls your own code: student.network = own_student:make\n") == 1
    row = json.loads((tmp_path / "out" / "results.json").read_text())["rows"][0]
    assert row["network"] == "own_student:make"
    assert row["parameters"] == (9 * 6 + 6) + (6 * 49 * 10 + 10)

    before = artifacts(tmp_path / "out")
    (tmp_path / "own_student.py").write_text(OWN.replace("nn.ReLU()", "nn.Sigmoid()"))
    assert typed(*words).code == 0
    assert made(before, artifacts(tmp_path / "out")) == {
        "train_student": 1, "score_student": 1, "find_worst_answers": 1,
    }  # fmt: skip


def test_an_edited_network_is_a_new_teacher_even_where_its_weights_are_loaded(
    tmp_path: Path, typed: Callable[..., Said]
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "own_teacher.py").write_text(OWN)
    network = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 10))
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    words = ["run", "tiny.yaml", "teacher.network=own_teacher:make", "teacher.weights=own.safetensors",
             "compare.methods=[nokd]", "--out", "out", "--quiet", "--no-report", "--no-export"]  # fmt: skip
    assert typed(*words).code == 0
    (tmp_path / "own_teacher.py").write_text(OWN.replace("nn.ReLU()", "nn.Sigmoid()"))
    assert typed(*words).code == 0
    assert len(artifacts(tmp_path / "out", "load_network")) == 2


def test_finished_runs_are_compared(finished: tuple[Path, Said], tmp_path: Path, typed: Callable[..., Said]) -> None:
    out, other = finished[0], tmp_path / "wider"
    shutil.copytree(out, other)
    recipe = other / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("transfer_steps: 12", "transfer_steps: 50"))
    said = typed("compare", out, other, "--out", tmp_path / "page.html")
    assert said.code == 0, said.err
    assert "student.transfer_steps 12 50" in " ".join(said.out.split())
    assert "is not compared" not in said.out
    assert (tmp_path / "page.html").read_text().startswith("<!")
    assert "holds no results.json" in typed("compare", out, tmp_path).sentence()
    assert "two or more finished runs" in typed("compare", out).sentence()


def test_every_run_keeps_its_worst_test_images(finished: tuple[Path, Said], found: dict[str, Any]) -> None:
    tensors = load_file(finished[0] / found["artifacts"]["worst"] / "worst.safetensors")
    names = dict.fromkeys(["nokd_longer", found["best"]["row"]])
    assert all(len(tensors[f"{name}_worst"]) == 10 for name in names)
    assert len(tensors["images"]) == len(tensors["labels"]) <= 10 * len(names)
    page = (finished[0] / "report.html").read_text()
    assert page.count('<table class="answers">') == len(names)
    assert "along" not in found["artifacts"]  # classes have no range
