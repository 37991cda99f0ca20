"""Turned images (sskd): which are made, which count, and both terms against loops in float64."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from forwards import STUDENT, TEACHER, classes, example, method, numbers, prepare, unbuilt
from lightning_fabric import Fabric
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from cgankd.config.settings import AugmentSettings, StudentSettings
from cgankd.core.errors import UserError
from cgankd.data.batches import Batch, Batches
from cgankd.data.imageset import TrainingImages
from cgankd.distill import DistillBatch, Method, create
from cgankd.distill.methods.sskd import cosines, selected_divergence
from cgankd.nets import zoo
from cgankd.training.forward import BatchForward


def turned_example(count: int = 3, rows: int = 7, scale: float = 2.0) -> DistillBatch:
    task = classes(count)
    batch, extra = example(task, rows, scale=scale), example(task, 3 * rows, scale=scale, seed=1)
    repeated = {"targets": batch.targets.repeat(3), "fake": batch.fake.repeat(3)}
    return dataclasses.replace(batch, extra=dataclasses.replace(extra, **repeated))


def drawn(images: Tensor) -> Batch:
    rows = torch.arange(len(images))
    return Batch(images, rows, rows, torch.zeros_like(rows), rows < 0)


def test_the_further_images_are_turned_by_90_180_and_270_degrees() -> None:
    images = torch.arange(8.0).view(2, 1, 2, 2)  # 0 1 / 2 3 and 4 5 / 6 7
    made = unbuilt("sskd", classes(3))
    found = made.views(drawn(images), 0)
    assert found is not None
    assert found.flatten(1).tolist() == [
        [1, 3, 0, 2], [5, 7, 4, 6], [3, 2, 1, 0], [7, 6, 5, 4], [2, 0, 3, 1], [6, 4, 7, 5],
    ]  # fmt: skip
    with pytest.raises(UserError, match="rotates images by 90 degrees, but these are 2x3; allowed: square"):
        made.views(drawn(torch.zeros(1, 1, 2, 3)), 0)


def kept(scores: np.ndarray, right: list[int], share: float) -> list[int]:
    """The rows that are right, and so many of the others, those with the best rank first."""
    ranks = [int((row > row[own]).sum()) for row, own in zip(scores, right, strict=True)]
    wrong = sorted((rank, row) for row, rank in enumerate(ranks) if rank)
    chosen = [row for _, row in wrong[: math.floor(share * len(wrong))]]
    return sorted([row for row, rank in enumerate(ranks) if not rank] + chosen)


def divergence(s: np.ndarray, t: np.ndarray, rows: list[int], temperature: float) -> float:
    p, q = (softmax(x[rows] / temperature, axis=1) for x in (t, s))
    return temperature**2 * float(entropy(p, q, axis=1).mean())


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.75, 1.0])
def test_the_worst_of_the_wrong_rows_are_left_out(keep: float) -> None:
    rng = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 30, 6, generator=rng).double()
    right = torch.randint(0, 6, (30,), generator=rng)
    rows = kept(t.numpy(), right.tolist(), keep)
    good = int((t.argmax(dim=1) == right).sum())
    assert len(rows) == good + int(keep * (30 - good))
    found = float(selected_divergence(s, t, right, keep, 2.0))
    assert found == pytest.approx(divergence(s.numpy(), t.numpy(), rows, 2.0), rel=1e-6)


def head(made: Method, who: str, features: Tensor) -> np.ndarray:
    weights = {name: weight.detach().double().numpy() for name, weight in made.named_parameters()}
    hidden = features.detach().double().numpy() @ weights[f"{who}_head.0.weight"].T + weights[f"{who}_head.0.bias"]
    return np.maximum(hidden, 0) @ weights[f"{who}_head.2.weight"].T + weights[f"{who}_head.2.bias"]


def test_both_terms_against_loops() -> None:
    batch, made = turned_example(), method("sskd", classes(3), 2.5, keep_turned=0.6, keep_contrast=0.3)
    assert batch.extra is not None
    assert batch.extra.teacher_outputs is not None
    terms = numbers(made.loss(batch))
    s, t = (x.detach().double().numpy() for x in (batch.extra.outputs, batch.extra.teacher_outputs))
    rows = kept(t, batch.extra.targets.tolist(), 0.6)
    assert len(rows) < 21
    assert terms["sskd_turned"] == pytest.approx(2.7 * divergence(s, t, rows, 2.5), rel=1e-4)

    alike = []
    for who in ("student", "teacher"):
        turned, whole = (head(made, who, getattr(x, f"{who}_features")["end"]) for x in (batch.extra, batch))
        cosine = np.empty((21, 7))
        for i in range(21):
            for j in range(7):
                a, b = turned[i], whole[j]
                cosine[i, j] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        alike.append(cosine)
    rows = kept(alike[1], [i % 7 for i in range(21)], 0.3)
    assert terms["sskd_contrast"] == pytest.approx(10 * divergence(*alike, rows, 0.5), rel=1e-4)


@pytest.mark.parametrize("count", [2, 1000])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_gradients_reach_the_student_and_its_head(count: int, rows: int) -> None:
    batch, made = turned_example(count, rows, scale=20.0), method("sskd", classes(count))
    assert batch.extra is not None
    sum(made.loss(batch).values()).backward()
    reached = [batch.extra.outputs.grad, batch.extra.student_features["end"].grad]
    reached += [weight.grad for weight in made.student_head.parameters()]
    assert all(slope is not None and torch.isfinite(slope).all() for slope in reached)
    assert float(batch.extra.outputs.grad.abs().sum()) > 1e-6
    assert all(weight.grad is None for weight in made.teacher_head.parameters())
    if rows > 1:  # one image can't be taken for another
        assert float(batch.extra.student_features["end"].grad.abs().sum()) > 1e-6


def test_a_part_of_the_batch_has_its_own_turned_images() -> None:
    batch, made = turned_example(rows=8), method("sskd", classes(3))
    part = batch.rows(batch.fake)
    assert batch.extra is not None
    mine = torch.tensor([row for row in range(24) if row % 8 in (2, 5)])
    by_hand = dataclasses.replace(
        part,
        extra=dataclasses.replace(
            batch.extra,
            outputs=batch.extra.outputs[mine],
            targets=batch.extra.targets[mine],
            teacher_outputs=batch.extra.teacher_outputs[mine],  # type: ignore[index]
            student_features={"end": batch.extra.student_features["end"][mine]},
            teacher_features={"end": batch.extra.teacher_features["end"][mine]},
            fake=batch.extra.fake[mine],
        ),
    )
    assert numbers(made.loss(part)) == pytest.approx(numbers(made.loss(by_hand)), rel=1e-6)


def test_the_teachers_head_learns_to_find_the_image(noise, fabric: Fabric) -> None:
    torch.manual_seed(0)
    student, teacher = (zoo.create(name, 1, 3, (16, 16)) for name in ("cnn8", "cnn16"))
    batches = Batches(TrainingImages(noise(24)), classes(3), 8, AugmentSettings(views=2), 0, fabric.device)
    objective = create("sskd", classes(3), StudentSettings(method_settings={"sskd": {"first": 1.0}}))
    made = objective.stacked[0][0]
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)

    def error() -> float:
        batch = forward(batches.at(0), 0.0)
        with torch.no_grad():
            ends = [x.teacher_features[made.theirs] for x in (batch.extra, batch)]
            alike = cosines(made.teacher_head, *ends) / 0.5
        return float(torch.nn.functional.cross_entropy(alike, torch.arange(8).repeat(3)))

    before = error()
    prepare(objective, forward, steps=100)
    assert error() < 0.9 * before
    forward.close()


def test_the_heads_are_as_wide_as_the_features() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in method("sskd", classes(3)).named_parameters()}
    (s,), (t,) = STUDENT["end"], TEACHER["end"]
    assert {shapes[f"student_head.{layer}.weight"] for layer in (0, 2)} == {(s, s)}
    assert {shapes[f"teacher_head.{layer}.weight"] for layer in (0, 2)} == {(t, t)}
