"""Scores in label windows against loops, their floor, and what is said where there are too few images."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from cgankd.config.settings import GeneratorMetricsSettings
from cgankd.metrics.fidelity import frechet_distance, mean_pairwise_distance
from cgankd.metrics.generator import Observed, score
from cgankd.tasks import Classification, Regression, Task

SCALAR = Regression(-20.0, 60.0, "degrees")
CLASSES = Classification(("a", "b", "c"))
SETTINGS = GeneratorMetricsSettings(features=("teacher",), window=0.1, windows=5)


def seen(task: Task, count: int, seed: int, noise: float = 1.0, labels: Tensor | None = None) -> Observed:
    """Features that hold the label, and a teacher that reads them rightly but for a little."""
    rng = torch.Generator().manual_seed(seed)
    if labels is None:
        scalars = task.from_target(torch.rand(count, generator=rng)) if task.continuous else None
        labels = torch.arange(count) % 3 if scalars is None else scalars
    features = noise * torch.randn(count, 4, generator=rng)
    features[:, 0] += task.to_target(labels).float()
    outputs = task.to_target(labels)[:, None] + 0.01 if task.continuous else torch.eye(3)[labels]
    return Observed(labels, labels, outputs, {"teacher": features})


def scored(task: Task, reference: Observed, held_out: Observed | None = None, **sets: Observed) -> dict:
    found = score(reference, sets, held_out or seen(task, 12, 50), task, SETTINGS, seed=0)
    json.dumps(found, allow_nan=False)
    return {entry["name"]: entry for entry in found["scores"]} | {entry["name"] + "/windows": entry
                                                                  for entry in found["windows"]}  # fmt: skip


def test_sfid_and_diversity_equal_loops_over_windows() -> None:
    reference, raw, real = (seen(SCALAR, n, s, w) for n, s, w in ((300, 1, 1.0), (200, 2, 1.5), (250, 3, 1.0)))
    found = scored(SCALAR, reference, raw=raw, real=real)
    distances, shares, names = [], [], []
    for centre in (-12.0, 4.0, 20.0, 36.0, 52.0):  # the range is 80 wide, so a half-width is 8
        a, b = (
            images.features["teacher"][(images.labels >= centre - 8) & (images.labels <= centre + 8)]
            for images in (reference, raw)
        )
        distances.append(frechet_distance(a, b))
        shares.append(mean_pairwise_distance(b) / mean_pairwise_distance(a))
        names.append(centre)
    windows = found["SFID[teacher]/windows"]
    assert [float(name) for name in windows["windows"]] == names
    assert windows["of"]["raw"] == pytest.approx(distances)
    made = found["SFID[teacher]"]["of"]["raw"]
    assert made["value"] == pytest.approx(sum(distances) / 5)
    assert made["spread"] == pytest.approx(float(torch.tensor(distances).std()), rel=1e-5)
    assert (made["images"], made["windows"]) == (200, [5, 5])
    assert found["diversity[teacher]"]["of"]["raw"]["value"] == pytest.approx(sum(shares) / 5)
    assert (found["SFID[teacher]"]["reference"], found["SFID[teacher]"]["dimension"]) == (300, 4)


def test_intra_fid_is_per_class_and_real_images_are_the_floor() -> None:
    reference, raw, real = (seen(CLASSES, 150, s, w) for s, w in ((1, 1.0), (2, 1.5), (3, 1.0)))
    found = scored(CLASSES, reference, raw=raw, real=real)
    expected = [
        frechet_distance(*(images.features["teacher"][images.labels == c] for images in (reference, raw)))
        for c in range(3)
    ]
    assert found["Intra-FID[teacher]/windows"]["of"]["raw"] == pytest.approx(expected)
    for name in ("FID[teacher]", "KID[teacher]", "Intra-FID[teacher]"):
        of = found[name]["of"]
        assert found[name]["better"] == "lower"
        assert of["real"]["value"] < 0.3 * of["raw"]["value"]
    assert found["diversity[teacher]"]["of"]["raw"]["value"] == pytest.approx(1.5, abs=0.1)
    assert found["diversity[teacher]"]["of"]["real"]["value"] == pytest.approx(1.0, abs=0.1)


def test_label_score_is_the_tasks_metric_of_the_label_asked_for() -> None:
    reference = seen(SCALAR, 60, 1)
    asked = seen(SCALAR, 40, 2)
    replaced = Observed(asked.labels + 5.0, asked.asked, asked.outputs, asked.features)
    of = scored(SCALAR, reference, raw=replaced, real=reference)["label score[teacher], degrees"]["of"]
    expected = float(SCALAR.score(asked.outputs, asked.labels).mean())  # .01 of 80 degrees, but at the range's end
    assert of["raw"]["value"] == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.8, rel=0.05)
    assert of["real"]["images"] == 12  # held out from the teacher, not the floor's own images

    wrong = seen(CLASSES, 40, 2)
    outputs = wrong.outputs.clone()
    outputs[:10] = outputs[:10].roll(1, dims=1)
    wrong = Observed(wrong.labels, wrong.asked, outputs, wrong.features)
    of = scored(CLASSES, seen(CLASSES, 60, 1), raw=wrong, real=wrong)["label score[teacher], %"]["of"]
    assert of["raw"]["value"] == 75.0


def test_too_few_images_are_said_and_not_scored() -> None:
    reference, real = seen(CLASSES, 60, 1), seen(CLASSES, 60, 2)
    few, none = seen(CLASSES, 9, 3), seen(CLASSES, 0, 4)
    found = scored(CLASSES, reference, held_out=seen(CLASSES, 3, 9), raw=few, processed=none, real=real)
    for name in ("FID", "KID", "precision", "recall"):
        of = found[f"{name}[teacher]"]["of"]
        assert of["raw"]["value"] is None
        assert of["raw"]["why"].startswith("9 images")
        assert of["processed"]["why"].startswith("0 images")
        assert of["real"]["value"] is not None
    assert found["Intra-FID[teacher]"]["of"]["raw"]["why"] == "no class has 10 images of every kind"
    assert found["Intra-FID[teacher]"]["of"]["real"]["windows"] == [3, 3]
    assert found["label score[teacher], %"]["of"]["real"]["why"].startswith("3 images")


def test_a_set_without_the_difficult_labels_is_not_better_for_it() -> None:
    labels = torch.cat([torch.zeros(20), torch.ones(20)]).long()  # none of class c
    reference, raw = seen(CLASSES, 90, 1), seen(CLASSES, 90, 2)
    partial = seen(CLASSES, 40, 3, labels=labels)
    found = scored(CLASSES, reference, raw=raw, processed=partial, real=raw)
    per_class = found["Intra-FID[teacher]/windows"]["of"]
    assert per_class["processed"][2] is None
    assert per_class["raw"][2] is not None
    raw_mean = found["Intra-FID[teacher]"]["of"]["raw"]
    assert raw_mean["value"] == pytest.approx((per_class["raw"][0] + per_class["raw"][1]) / 2)
    assert raw_mean["windows"] == [2, 3]


def test_images_that_are_all_the_same_give_numbers_or_none() -> None:
    flat = seen(CLASSES, 45, 1)
    flat = Observed(flat.labels, flat.asked, flat.outputs, {"teacher": torch.ones(45, 4)})
    found = scored(CLASSES, flat, raw=flat, real=flat)
    assert found["FID[teacher]"]["of"]["raw"]["value"] == 0.0
    assert found["diversity[teacher]"]["of"]["raw"]["value"] is None
