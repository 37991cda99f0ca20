"""The station as a whole: which images it takes, that copies show, and that it survives tiny splits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import GeneratorMetricsSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.metrics.generator_quality import Processed, RealImages, measure_quality
from cgankd.nets import zoo
from cgankd.tasks import Classification, Regression
from works import stopped_at_every_save

Noise = Callable[..., ImageSet]


class Pick(Sampler):
    """A generator that hands out rows of given images, whatever the label; notes what it was asked."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.asked = images, torch.empty(0)

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        self.asked = torch.cat([self.asked, targets.float()])
        return self.images[indices % len(self.images)]


def networks(outputs: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: zoo.create("cnn8", 1, outputs, (16, 16)).eval() for name in ("teacher", "nokd")}


def real_images(noise: Noise, scalar: bool = False, val: int = 30, pool: int = 160) -> RealImages:
    everything = noise(pool, scalar=scalar, seed=1)
    task = Regression(0.0, 1.0) if scalar else Classification(("a", "b", "c"))
    train = everything.take(torch.arange(40))
    held_out = noise(val, scalar=scalar, seed=2)
    return RealImages(train, everything, held_out, held_out, task)


def measured(
    data: RealImages, sampler: Pick, made: ImageSet, fabric: Fabric, work: Work | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settings = GeneratorMetricsSettings(images=60, windows=4, **changes)
    processed = Processed(made, made.labels, replaced=data.task.continuous, real_share=None)
    found = measure_quality(
        work or Work(fabric), data, sampler, processed, networks(data.task.num_outputs), settings, seed=0
    )
    json.dumps(found[0], allow_nan=False)
    return found


@pytest.mark.parametrize("scalar", [False, True])
def test_every_set_is_scored_in_every_feature_space(noise: Noise, fabric: Fabric, scalar: bool) -> None:
    data = real_images(noise, scalar)
    sampler, made = Pick(noise(100, seed=5).images), noise(300, scalar=scalar, seed=6)
    found, pairs = measured(data, sampler, made, fabric)
    window = "SFID" if scalar else "Intra-FID"
    assert {entry["name"] for entry in found["scores"]} == {
        f"{score}[{space}]" for score in ("FID", "KID", "precision", "recall", window, "diversity")
        for space in ("teacher", "nokd")
    } | {"label score[teacher]" if scalar else "label score[teacher], %"}  # fmt: skip
    for entry in found["scores"]:
        assert list(entry["of"]) == ["raw", "processed", "real"]
        if entry["name"].startswith("FID"):
            assert [of["images"] for of in entry["of"].values()] == pytest.approx([60, 60, 60], abs=6)
    assert len(sampler.asked) == 60
    assert len(pairs["pixels_fakes"]) == len(pairs["pixels_train"]) == len(pairs["teacher_distances"]) == 12
    assert len(found["bound"]["terms"]) == 6


def test_raw_fakes_are_asked_for_the_labels_of_the_floors_images(noise: Noise, fabric: Fabric) -> None:
    data = real_images(noise)
    made = noise(300, seed=6)
    lopsided = ImageSet(made.images, torch.cat([torch.zeros(200), torch.ones(50), torch.full((50,), 2)]).long())
    sampler = Pick(made.images)
    found, _ = measured(data, sampler, lopsided, fabric)
    counts = torch.bincount(sampler.asked.long(), minlength=3)
    assert counts.sum() == 60
    assert all(10 <= int(count) <= 30 for count in counts)  # as the pool's, a third each
    assert found["scores"][0]["of"]["processed"]["images"] == 60  # and drawn to the same frequencies


def test_a_generator_that_repeats_its_training_images_is_caught(noise: Noise, fabric: Fabric) -> None:
    data = real_images(noise)
    new = noise(100, seed=8)
    found, pairs = measured(data, Pick(data.train.images), new, fabric)
    shares = {(entry["space"], entry["set"]): entry for entry in found["memorisation"]}
    for space in ("pixels", "teacher"):
        assert shares[space, "raw"]["share"] == 1.0
        assert shares[space, "raw"]["p_value"] < 1e-6
        assert shares[space, "processed"]["p_value"] > 0.01
    assert not (pairs["pixels_fakes"] == pairs["pixels_train"]).flatten(1).all(dim=1).any()
    _, pairs = measured(data, Pick(new.images), ImageSet(data.train.images, data.train.labels), fabric)
    assert (pairs["pixels_fakes"] == pairs["pixels_train"]).all()


def test_tiny_splits_and_no_processed_images_say_why(noise: Noise, fabric: Fabric) -> None:
    data = real_images(noise, val=3, pool=44)
    nothing = noise(4).take(torch.arange(0))
    found, pairs = measured(data, Pick(noise(30, seed=5).images), nothing, fabric, features=("teacher",))
    assert not pairs
    for entry in found["memorisation"]:
        assert entry["share"] is None
        assert entry["why"] == "there are fewer than 10 validation images"
    assert found["scores"][0]["of"]["processed"]["why"].startswith("0 images")
    mismatch = found["bound"]["terms"][4]
    assert mismatch["value"] is None
    assert mismatch["says"].startswith("nothing")


def test_validation_images_that_repeat_training_images_are_said(noise: Noise, fabric: Fabric) -> None:
    data = real_images(noise)
    data = dataclasses.replace(data, val=data.train.take(torch.arange(20)))
    found, _ = measured(data, Pick(noise(60, seed=5).images), noise(60, seed=6), fabric)
    assert {entry["why"] for entry in found["memorisation"]} == {"validation images themselves repeat training images"}
    assert {entry["median_ratio"] for entry in found["memorisation"]} == {None}


def test_the_same_seed_gives_the_same_numbers_and_pairs(noise: Noise, fabric: Fabric) -> None:
    data, made = real_images(noise), noise(100, seed=6)
    first, second = (measured(data, Pick(made.images), made, fabric) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.parametrize("scalar", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_killed_measurement_goes_on_bit_for_bit(scalar: bool, noise: Noise, fabric: Fabric, tmp_path: Path) -> None:
    data, made = real_images(noise, scalar), noise(100, scalar=scalar, seed=6)

    def measure(work: Work) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return measured(data, Pick(made.images), made, fabric, work)

    whole, drawn = measure(Work(fabric))
    (parts, redrawn), calls = stopped_at_every_save(fabric, tmp_path, measure)
    assert calls > 10
    assert parts == whole
    assert drawn.keys() == redrawn.keys()
    assert all(torch.equal(drawn[name], redrawn[name]) for name in drawn)
