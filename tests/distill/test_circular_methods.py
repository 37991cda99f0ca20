"""Every method for scalars trains a student whose two outputs are a cosine and a sine; tbr and ckd by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from forwards import SCALAR, example
from lightning_fabric import Fabric

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.store import Work
from cgankd.data.augment import Mixing
from cgankd.data.imageset import TrainingImages
from cgankd.distill import METHODS, DistillBatch
from cgankd.nets import zoo
from cgankd.tasks import CircularRegression
from cgankd.tasks.axis import CIRCLE
from cgankd.training.loop import fit

TASK = CircularRegression(high=1.0)
SETTINGS = FitSettings(steps=3, batch_size=8, augment=AugmentSettings(views=2))
SERVED = [name for name in sorted(METHODS) if "regression" in METHODS[name].tasks]


@pytest.mark.parametrize("name", SERVED)
def test_three_steps_beside_kd(name: str, noise, fabric: Fabric) -> None:
    torch.manual_seed(0)
    student = zoo.create(distill.student_network(name, "cnn8"), 1, TASK.num_outputs, (16, 16))
    teacher = zoo.create("cnn24", 1, TASK.num_outputs, (16, 16))
    real, fake = (noise(20, scalar=True, seed=seed) for seed in (1, 2))
    objective = distill.create(name if name == "kd" else f"kd+{name}", TASK)
    history = fit(Work(fabric), student, objective, TrainingImages(real, fake), SETTINGS, seed=3, teacher=teacher)
    assert all(math.isfinite(entry["loss"]) for entry in history)
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())


def batch() -> tuple[DistillBatch, np.ndarray, np.ndarray, np.ndarray]:
    """A batch, and outputs of student and teacher and the labels' points, on a circle of circumference 1."""
    rng = torch.Generator().manual_seed(0)
    targets = torch.rand(9, generator=rng)
    outputs, teacher = (CIRCLE.coordinates(targets) + 0.3 * torch.randn(9, 2, generator=rng) for _ in range(2))
    angles = 2 * np.pi * targets.double().numpy()
    right = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = tuple(values / (2 * np.pi) for values in (outputs.double().numpy(), teacher.double().numpy(), right))
    return DistillBatch(outputs, targets, teacher, {}, {}, torch.zeros(9, dtype=torch.bool)), *points


def test_tbr_compares_the_distances_of_points() -> None:
    seen, mine, theirs, right = batch()
    errors, bound = (((points - right) ** 2).sum(axis=1) for points in (mine, theirs))
    assert 0 < (errors > bound).sum() < 9
    terms = METHODS["tbr"](TASK).loss(seen)
    assert float(terms["tbr"]) == pytest.approx(0.5 * np.where(errors > bound, errors, 0.0).mean(), rel=1e-4)


def test_ckd_compares_differences_of_points() -> None:
    seen, mine, theirs, right = batch()
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]

    def apart(points: np.ndarray) -> np.ndarray:
        return np.array([points[i] - points[j] for i, j in pairs])

    expected = sum(((apart(mine) - apart(other)) ** 2).sum(axis=1).mean() for other in (theirs, right))
    assert float(METHODS["ckd"](TASK).loss(seen)["ckd"]) == pytest.approx(expected, rel=1e-4)


def test_tbr_of_a_scalar_is_as_before() -> None:
    seen = example(SCALAR)
    right = seen.targets.unsqueeze(1)
    mine, theirs = ((outputs.detach() - right).square() for outputs in (seen.outputs, seen.teacher_outputs))
    expected = 0.5 * torch.where(mine > theirs, mine, 0.0).mean()
    assert float(METHODS["tbr"](SCALAR).loss(seen)["tbr"].detach()) == float(expected)


def test_a_mix_of_two_angles_has_no_target() -> None:
    targets = torch.rand(4)
    images = torch.rand(4, 1, 16, 16)
    mixed, found = Mixing(0.3, 0.0, 0)(images, targets, TASK.num_outputs, 0)
    assert found.shape == (4,)
    assert found.isnan().all()
    assert not torch.equal(mixed, images)
