"""What can be looked at between the steps of Distiller, and a run from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from cgankd import Distiller, UserError, open_results, run_recipe
from cgankd.tasks import Classification
from test_api import ALL_KEPT, GAN, RATIO, SYNTHESIS, Brightness, classes, real_generator, scalars, student


def test_every_step_can_be_looked_at(fabric: Fabric) -> None:
    task = Classification(("low", "middle", "high"))
    road = Distiller(*classes(), Brightness(classes=True), task, held_out=classes(30, seed=7), fabric=fabric)
    with pytest.raises(UserError, match=r"the density ratio was not checked; needed: Distiller\(held_out"):
        _ = road.checks
    for look in (lambda: road.counts, road.curves, road.examples):
        with pytest.raises(UserError, match=r"call (synthesize|train_generator)\(\) first"):
            look()
    assert repr(road) == (
        "Distiller(classification, ImageSet(60 images of 16x16x1, 3 classes 0 to 2), no images synthesized yet)"
    )
    road.train_generator(**GAN)
    assert repr(road.curves()) == "<figure: losses of the GAN>"
    raw = road.generate(per_label=2)
    assert raw.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert "<figcaption" in raw._repr_html_()
    assert "middle" in raw._repr_html_()
    assert torch.equal(road.generate(per_label=2).images, raw.images)
    assert not torch.equal(road.generate(per_label=2, seed=1).images, raw.images)
    assert road.generate([2], per_label=3).labels.tolist() == [2, 2, 2]
    assert road.generate([2], per_label=np.int64(2)).labels.tolist() == [2, 2]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="label 3 at row 0 is not a class"):
        road.generate([3])
    with pytest.raises(UserError, match=r"labels are \[0.5\]; allowed: whole numbers, 0 to 2"):
        road.generate([0.5])
    with pytest.raises(UserError, match=r"labels are <U1; allowed: numbers"):
        road.generate(["0"])
    for count in (-1, 0, 1.5):
        with pytest.raises(UserError, match=f"per_label is {count}; allowed: a whole number from 1 on"):
            road.generate([0], count)
    road.train_density_ratio(**RATIO)
    assert road.checks.rows[0] == [
        "mean over generated images (right: 1)",
        f"{road.ratio_check['mean_on_fakes']:.3f}",
    ]
    assert list(road.checks.notes) == (road.ratio_check["reasons"] or ["All checks are passed."])
    fakes = road.synthesize(images=30, **SYNTHESIS)
    assert fakes.names == task.class_names
    assert [line[0] for line in road.counts.rows] == ["low", "middle", "high", "all"]
    assert road.counts.rows[-1][1] == "30"
    kept = road.examples("kept")
    assert set(kept.columns) == {"predictions", "errors", "ratios"}
    assert len(kept) > 0


def test_what_is_compared_has_names(fabric: Fabric) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match=r"networks is no dict; needed: names and networks"):
        road.compare([road.teacher], *classes())
    with pytest.raises(UserError, match=r"the network is None; needed: a torch.nn.Module"):
        road.compare({"kd": None}, *classes())


def test_an_outcome_without_images_is_refused(fabric: Fabric) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    road.use_generator(real_generator)
    road.synthesize(images=9, **ALL_KEPT)
    with pytest.raises(UserError, match=r"the last synthesis has no 'dropped' images; it has: kept$"):
        road.examples("dropped")


def test_numbers_are_generated_over_their_range(fabric: Fabric) -> None:
    images, labels = scalars()
    road = Distiller(images, labels, Brightness(classes=False), outputs="scaled", fabric=fabric)
    road.use_generator(real_generator)
    shown = road.generate(per_label=1)
    assert shown.labels.tolist() == pytest.approx(torch.linspace(-2.0, -0.4, 10).tolist())
    assert shown.names == ()
    assert float(shown.images[0].float().mean()) > 190  # label -2 is the grey value 200


def test_a_student_can_learn_from_real_images_alone(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    made = road.distill(student(3), "kd", generated=False, steps=60, batch_size=32, learning_rate=0.2)
    assert road.synthesis is None  # no generator was trained
    shown = road.compare({"teacher": road.teacher, "student": made}, *classes(30, seed=5))
    assert shown.header == ["network", "accuracy, %"]
    assert shown.rows[0] == ["teacher", "100.0"]
    assert float(shown.rows[1][1]) > 60


def test_a_recipe_runs_from_python_and_its_results_open_again(tmp_path: Path) -> None:
    small = ["compare.methods=[nokd_longer]", "data.train_size=60", "teacher.network=cnn8", "teacher.fit.steps=2",
             "student.fit.steps=2", "student.transfer_steps=2", "runtime.precision=fp32"]  # fmt: skip
    results = run_recipe("digits", *small, out=tmp_path / "out")
    assert "nokd_longer" in repr(results)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == results["rows"]
    assert open_results(tmp_path / "out")._repr_html_() == results._repr_html_()
    with pytest.raises(UserError, match=r"holds no results\.json"):
        open_results(tmp_path)
