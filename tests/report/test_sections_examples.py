"""The sections with single images: the worst test images, and the slider over a scalar label."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cgankd.report import sections_examples
from cgankd.report.render import render
from cgankd.report.run import read

Results = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
WriteArtifact = Callable[..., str]


def worst(images: int, classes: int, *names: str) -> dict[str, np.ndarray]:
    """Image n has the label n; network number k answers n + k + 1, with a probability of 0.5 + 0.1 k."""
    tensors = {"images": np.zeros((images, 1, 16, 16), np.uint8), "labels": np.arange(images) % classes}
    for number, name in enumerate(names):
        tensors[f"{name}_worst"] = np.arange(images)[::-1][:10]
        tensors[f"{name}_predictions"] = (np.arange(images) + number + 1) % classes
        tensors[f"{name}_probabilities"] = np.full(images, 0.5 + 0.1 * number, np.float32)
    return tensors


def cells(page: Path) -> list[list[list[str]]]:
    """The texts of the tables of worst images, without the column of images."""
    source = page.read_text(encoding="utf-8")
    tables = re.findall(r'<table class="answers">(.*?)</table>', source, re.S)
    return [[re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", row) for row in re.findall("<tr>.*", each)] for each in tables]


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8")))


def test_the_size_of_the_images_is_width_by_height(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("classification", bare=True)
    summary = {"name": "wide", "counts": {"train": 40}, "channels": 1, "size": [16, 24], "bins": []}  # [height, width]
    results["artifacts"]["data"] = write_artifact(tmp_path, "data-0", summary)
    page = text_of(render(write_run(tmp_path, results, stages=False)))
    assert "wide: 24×16 pixels, grey." in page


def test_worst_images_of_control_and_best_student(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("classification", bare=True, best={"row": "cgan_kd", "seed": 2, "val": 90.0, "test": 89.0})
    tensors = worst(10, 10, "nokd_longer", "cgan_kd")
    path = write_artifact(tmp_path, "worst-0", {"networks": ["nokd_longer", "cgan_kd"]}, worst=tensors)
    results["artifacts"]["worst"] = path
    page = render(write_run(tmp_path, results, stages=False))
    control, best = cells(page)
    assert control[0] == ["image", "true label", "the control", "the best student"]
    assert control[1] == ["digit 9", "digit 0 (50 %)", "digit 1 (60 %)"]
    assert (len(control), len(best)) == (11, 11)
    text = text_of(page)
    assert "row cgan_kd, seed 2; the control has the same seed" in text
    assert "Worst of the best student (cGAN-KD + KD)" in text
    assert "the lowest probabilities of the true class, the worst first" in text


def test_worst_images_have_the_names_of_their_files(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("classification", bare=True, best={"row": "nokd_longer", "seed": 0, "val": 5.0, "test": 5.0})
    summary = {"networks": ["nokd_longer"], "files": [f"<b>{number}</b>.png" for number in range(3)]}
    path = write_artifact(tmp_path, "worst-0", summary, worst=worst(3, 10, "nokd_longer"))
    results["artifacts"]["worst"] = path
    source = render(write_run(tmp_path, results, stages=False)).read_text(encoding="utf-8")
    named = re.findall(r"<small>(.*?)</small></td>", source)
    assert named == [f"&lt;b&gt;{number}&lt;/b&gt;.png" for number in (2, 1, 0)]


def test_scalars_show_value_and_error(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("regression", bare=True, best={"row": "nokd_longer", "seed": 0, "val": 5.0, "test": 5.0})
    tensors = worst(3, 180, "nokd_longer")
    tensors["nokd_longer_predictions"] = np.array([10.4, 20.0, 170.0], np.float32)
    path = write_artifact(tmp_path, "worst-0", {"networks": ["nokd_longer"]}, worst=tensors)
    results["artifacts"]["worst"] = path
    page = render(write_run(tmp_path, results, stages=False))
    assert cells(page) == [[
        ["image", "true label", "the best student"], ["2", "170 (error 168)"], ["1", "20 (error 19)"],
        ["0", "10 (error 10)"],
    ]]  # fmt: skip
    text = text_of(page)
    assert "the predicted value and its error, in degrees" in text
    assert "row nokd_longer, seed 0. It is the control itself, so only its answers are shown." in text
    results["refit"] = {**results["rows"][0], "method": "nokd_longer", "seed": 0, "ships": True}
    text = text_of(render(write_run(tmp_path, results, stages=False)))
    assert "seed 0, trained again on all labels. The answers of the control, which is this row before, are not" in text


def along(folder: Path, results: dict[str, Any], write_artifact: WriteArtifact, one_latent: bool) -> None:
    """Add images at three labels to the run's artifacts."""
    images = np.random.default_rng(0).integers(0, 255, (3, 2, 1, 16, 16), np.uint8)
    tensors = {"labels": np.array([0.0, 90.0, 180.0], np.float32), "images": images}
    results["artifacts"]["along"] = write_artifact(
        folder, f"along-{one_latent}", {"one_latent": one_latent}, along=tensors
    )


def test_a_slider_over_the_label_of_a_scalar(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("regression", bare=True)
    results["artifacts"]["generator"] = write_artifact(tmp_path, "generator-0", {})
    along(tmp_path, results, write_artifact, one_latent=True)
    source = render(write_run(tmp_path, results, stages=False)).read_text(encoding="utf-8")
    name = "slider-generated-images-along-the-label"
    assert f'<label for="{name}">requested label: <output for="{name}"></output>' in source
    slider = f'<input id="{name}" aria-label="requested label" type="range" min="0" max="2" step="1" value="0">'
    assert source.count(slider) == 1
    assert re.findall(r'data-label="([^"]*)"', source.partition('id="generator"')[2].partition("<section")[0]) == [
        "0 degrees", "90 degrees", "180 degrees",
    ]  # fmt: skip
    assert 'alt="generated images, requested label 90 degrees"' in source
    assert "one latent vector" in source


def test_a_generator_that_has_no_latent_is_said_to_draw_other_images(
    tmp_path: Path, make_results: Results, write_artifact: WriteArtifact, write_run: Write
) -> None:
    results = make_results("regression", bare=True)
    along(tmp_path, results, write_artifact, one_latent=False)
    (slider,) = sections_examples.along(read(write_run(tmp_path, results, stages=False)))
    assert "draws other images for each label" in slider.caption
    assert [step.label for step in slider.steps] == ["0", "90", "180"]


def test_runs_without_these_files_have_no_such_sections(
    tmp_path: Path, make_results: Results, write_run: Write
) -> None:
    run = read(write_run(tmp_path, make_results("regression"), stages=False))
    assert sections_examples.worst(run) is None
    assert sections_examples.along(run) == []
