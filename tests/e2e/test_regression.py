"""The whole road on a folder of pictures with decimals: a bar and the angle it is turned by."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from commands import BARS, CHECKPOINT_FILE, Said, kill_in, same, write_bars
from PIL import Image
from safetensors.torch import load_file
from scipy import stats

pytestmark = pytest.mark.xdist_group("regression")


def test_a_regression_from_a_csv_folder(tmp_path: Path, typed: Callable[..., Said]) -> None:
    write_bars(tmp_path / "bars")
    (tmp_path / "mine.yaml").write_text(BARS)
    said = typed("run", "mine.yaml")
    assert said.code == 0, said.err
    assert said.err == ""
    out = tmp_path / "runs" / "mine"
    found = json.loads((out / "results.json").read_text())
    assert (out / "report.html").is_file()
    assert (found["task"], found["metric"], found["higher_is_better"]) == ("regression", "mae", False)
    assert (found["dataset"], found["unit"], found["recipe"]) == ("bars", "degrees", "mine")
    assert [row["method"] for row in found["rows"]] == ["nokd", "nokd_longer", "kd", "cgan", "cgan_kd"]
    low, high = found["task_settings"]["low"], found["task_settings"]["high"]
    assert 0 <= low < 20
    assert 160 < high <= 180  # of the training split
    for row in found["rows"]:
        assert 0 < row["mean"] < high - low  # degrees: an error in [0, 1] labels would be far below 1
        assert row["mean"] > 1
        assert row["steps"] == (5 if row["method"] == "nokd" else 8)
        assert len(row["per_bin"]) == 10
    made = found["synthesis"]
    assert made["requested"] == 120
    assert made["filter_quantile"] == 0.7
    assert len(made["thresholds"]) == 1  # one over all labels (Algorithm 2)
    assert sum(entry["kept"] for entry in made["per_label"]) == made["kept"]
    assert any("scalars (decimals)" in note for note in found["notes"])
    for row in found["rows"]:
        assert f"\n{row['method']} " in said.out
    assert "MAE, degrees" in said.out
    best, answers = found["best"], load_file(out / found["artifacts"]["worst"] / "answers.safetensors")
    errors = (answers[f"{best['row']}_predictions"] - answers["labels"]).abs().numpy().astype(float)
    assert best["test"] == pytest.approx(errors.mean(), rel=1e-5)
    assert best["test_standard_error"] == pytest.approx(stats.sem(errors), rel=1e-5)
    along = load_file(out / found["artifacts"]["along"] / "along.safetensors")
    assert along["images"].shape[:2] == (17, 3)
    assert along["labels"][[0, -1]].tolist() == pytest.approx([low, high])
    assert 'type="range"' in (out / "report.html").read_text()


@pytest.mark.long
def test_a_label_that_wraps(tmp_path: Path, typed: Callable[..., Said]) -> None:
    write_bars(tmp_path / "bars")
    (tmp_path / "bars.yaml").write_text(BARS)
    words = ["data.circular=180", "compare.methods=[nokd, cgan_kd]"]
    assert typed("run", "bars.yaml", *words, "--out", "out", "--no-report", "--quiet").code == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["task_settings"] == {"type": "circular", "low": 0.0, "high": 180.0, "unit": "degrees"}
    assert all(0 < row["mean"] <= 90 for row in found["rows"])  # no error is above half the period
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "student.onnx"))
    pixels = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "bars").glob("*.png"))]
    answers = session.run(None, {"images": np.stack(pixels)[:, None]})[0]
    assert answers.shape == (130,)
    assert answers.min() >= 0
    assert answers.max() < 180
    assert typed("predict", "out", "bars", "--out", "of-run.csv").code == 0
    with (tmp_path / "of-run.csv").open(newline="") as stream:
        predictions = np.array([float(row["prediction, degrees"]) for row in csv.DictReader(stream)])
    away = np.abs(answers - predictions)
    assert np.minimum(away, 180 - away).max() < 0.05


@pytest.mark.long
def test_a_regression_killed_in_its_generator(tmp_path: Path, typed: Callable[..., Said]) -> None:
    write_bars(tmp_path / "bars")
    (tmp_path / "bars.yaml").write_text(BARS)
    words = [
        "run",
        "bars.yaml",
        "generator.steps=60",
        "runtime.checkpoint_seconds=0.02",
        "compare.methods=[cgan]",
        "--no-report",
        "--no-export",
    ]
    kill_in("train_generator", CHECKPOINT_FILE, 2, words, tmp_path, step=5)  # its label embedding is not trained again
    assert typed(*words, "--out", "out", "--quiet").code == 0
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    same(tmp_path / "out", tmp_path / "whole")
