"""Several teachers as one: mean votes, and weights by confidence, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.tasks import Classification, Regression, Task
from cgankd.teachers.jury import Jury, as_one

CLASSES, UNIT = Classification(("a", "b", "c", "d")), Regression(0.0, 1.0)


class Says(nn.Module):
    """Given outputs, whatever it is shown."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs[: len(images)]


def votes(teachers: int, outputs: int, images: int = 6) -> Tensor:
    return torch.randn(teachers, images, outputs, generator=torch.Generator().manual_seed(3)) * 2.0


def asked(made: Tensor, task: Task, fabric: Fabric, how: str) -> Tensor:
    teacher = as_one([Says(outputs) for outputs in made], how, task, fabric)
    assert teacher is not None
    return teacher(torch.zeros(made.shape[1], 1, 16, 16))


@pytest.mark.parametrize("teachers", [2, 3, 5])
def test_classes_by_the_mean_of_probabilities(teachers: int, fabric: Fabric) -> None:
    made = votes(teachers, 4)
    found = softmax(asked(made, CLASSES, fabric, "mean").numpy(), axis=1)
    np.testing.assert_allclose(found, softmax(made.double().numpy(), axis=2).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("teachers", [2, 3, 5])
def test_classes_by_confidence(teachers: int, fabric: Fabric) -> None:
    made = votes(teachers, 4)
    found = asked(made, CLASSES, fabric, "confidence").double().exp()
    for image in range(made.shape[1]):
        probabilities = [softmax(made[t, image].double().numpy()) for t in range(teachers)]
        doubts = [math.exp(entropy(p)) for p in probabilities]
        weights = [(1.0 - doubt / sum(doubts)) / (teachers - 1) for doubt in doubts]
        assert sum(weights) == pytest.approx(1.0)
        expected = sum(w * p for w, p in zip(weights, probabilities, strict=True))
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("teachers", [2, 3, 5])
def test_scalars_by_the_mean_and_by_confidence(teachers: int, fabric: Fabric) -> None:
    made = votes(teachers, 1)
    np.testing.assert_allclose(asked(made, UNIT, fabric, "mean").numpy(), made.numpy().mean(axis=0), rtol=1e-5)
    found = asked(made, UNIT, fabric, "confidence")
    for image in range(made.shape[1]):
        numbers = [float(number) for number in made[:, image, 0]]
        distances = [abs(number - float(np.median(numbers))) for number in numbers]
        typical = sum(distances) / teachers
        doubts = [math.exp(distance / typical) for distance in distances]
        weights = [(1.0 - doubt / sum(doubts)) / (teachers - 1) for doubt in doubts]
        expected = sum(w * n for w, n in zip(weights, numbers, strict=True))
        assert float(found[image, 0]) == pytest.approx(expected, rel=1e-4)


def test_who_strays_from_all_others_counts_little(fabric: Fabric) -> None:
    made = torch.tensor([0.50, 0.51, 0.52, 0.9])[:, None, None]
    mean, weighed = (float(asked(made, UNIT, fabric, how)) for how in ("mean", "confidence"))
    assert mean == pytest.approx(0.6075)
    assert abs(weighed - 0.51) < 0.3 * abs(mean - 0.51)
    agreed = torch.full((3, 2, 1), 0.25)
    assert asked(agreed, UNIT, fabric, "confidence").flatten().tolist() == pytest.approx([0.25, 0.25])
    two = torch.tensor([0.1, 0.7])[:, None, None]
    assert float(asked(two, UNIT, fabric, "confidence")) == pytest.approx(0.4)


def test_who_does_not_know_counts_little(fabric: Fabric) -> None:
    sure, unsure = torch.tensor([9.0, 0.0, 0.0, 0.0]), torch.zeros(4)
    probability = {
        how: float(asked(torch.stack([sure, unsure])[:, None], CLASSES, fabric, how).softmax(dim=1)[0, 0])
        for how in ("mean", "confidence")
    }
    assert probability["mean"] == pytest.approx((0.99963 + 0.25) / 2, abs=1e-4)
    assert probability["confidence"] > probability["mean"] + 0.1


@pytest.mark.parametrize("how", ["mean", "confidence"])
def test_a_thousand_classes_in_half_precision_and_no_gradient(how: str, fabric: Fabric) -> None:
    task = Classification(tuple(str(number) for number in range(1000)))
    made = votes(3, 1000).mul(20.0).to(torch.bfloat16)
    found = asked(made, task, fabric, how)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.isfinite(found).all()
    assert found.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 6, abs=1e-4)


def test_a_student_of_several_teachers_is_pulled_to_their_mean(fabric: Fabric) -> None:
    """KD's gradient by the student's logits vanishes where the student says the mean probability."""
    made = votes(3, 4)
    mean = torch.softmax(made, dim=2).mean(dim=0).log().requires_grad_()
    loss = CLASSES.imitation_loss(mean, asked(made, CLASSES, fabric, "mean"), 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(mean.grad.abs().max()) < 1e-6  # type: ignore[union-attr]


def test_the_first_alone_is_the_first_itself(fabric: Fabric) -> None:
    one, other = Says(torch.zeros(2, 4)), Says(torch.ones(2, 4))
    assert as_one([one, other], "first", CLASSES, fabric) is one
    assert as_one([], "first", CLASSES, fabric) is None
    with pytest.raises(UserError, match="'best' is not known; allowed: first, mean, confidence"):
        as_one([one, other], "best", CLASSES, fabric)
    with pytest.raises(UserError, match="needs several teachers, but there is one"):
        Jury([one], CLASSES, fabric)
