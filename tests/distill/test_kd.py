"""Plain KD: its two terms against numpy, its gradients, many classes, two classes, half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from cgankd import distill
from cgankd.config.settings import StudentSettings
from cgankd.core.errors import UserError
from cgankd.distill import DistillBatch
from cgankd.tasks import Classification, Regression, Task

SCALAR = Regression(0.0, 1.0)


def classes(count: int) -> Classification:
    return Classification(tuple(map(str, range(count))))


def batch(student: Tensor, teacher: Tensor | None, targets: Tensor) -> DistillBatch:
    fake = torch.zeros(len(targets), dtype=torch.bool)
    return DistillBatch(student, targets, teacher, {}, {}, fake)


def example(task: Task, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(rows, task.num_outputs, generator=rng) for _ in range(2))
    if task.continuous:
        return student, teacher, torch.rand(rows, generator=rng)
    return student, teacher, torch.randint(0, task.num_outputs, (rows,), generator=rng)


@pytest.mark.parametrize("count", [2, 10, 1000])
@pytest.mark.parametrize(
    ("settings", "r", "a", "temperature"),
    [({}, 0.1, 0.9, 4.0), ({"temperature": 2.0}, 0.1, 0.9, 2.0),
     ({"label_weight": 0.7, "teacher_weight": 3.0, "temperature": 1.0}, 0.7, 3.0, 1.0),
     ({"label_weight": 0.0}, 0.0, 0.9, 4.0)],
)  # fmt: skip
def test_terms_against_numpy(count: int, settings: dict, r: float, a: float, temperature: float) -> None:
    task = classes(count)
    student, teacher, targets = example(task)
    terms = distill.create("kd", task, StudentSettings(**settings)).loss(batch(student, teacher, targets))
    s, t = student.double().numpy(), teacher.double().numpy()
    cross_entropy = -log_softmax(s, axis=1)[np.arange(6), targets.numpy()].mean()
    log_p, log_q = log_softmax(t / temperature, axis=1), log_softmax(s / temperature, axis=1)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
    assert float(terms["label"]) == pytest.approx(r * cross_entropy, rel=1e-5)
    assert float(terms["kd"]) == pytest.approx(a * temperature**2 * divergence, rel=1e-4)
    assert set(terms) == {"label", "kd"}


@pytest.mark.parametrize(
    ("settings", "r", "a"), [({}, 0.5, 0.5), ({"label_weight": 0.2, "teacher_weight": 0.8}, 0.2, 0.8)]
)
def test_scalar_terms_against_numpy(settings: dict, r: float, a: float) -> None:
    student, teacher, targets = example(SCALAR)
    terms = distill.create("kd", SCALAR, StudentSettings(**settings)).loss(batch(student, teacher, targets))
    s, t = student[:, 0].double().numpy(), teacher[:, 0].double().numpy()
    assert float(terms["label"]) == pytest.approx(r * ((s - targets.double().numpy()) ** 2).mean(), rel=1e-5)
    assert float(terms["kd"]) == pytest.approx(a * ((s - t) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("task", [classes(2), classes(1000), SCALAR])
def test_the_student_gets_a_gradient_and_the_teacher_none(task: Task) -> None:
    student, teacher, targets = example(task)
    student.requires_grad_()
    sum(distill.create("kd", task).loss(batch(student, teacher, targets)).values()).backward()
    assert torch.isfinite(student.grad).all()
    assert (student.grad.abs().sum(dim=1) > 1e-4).all()
    assert teacher.grad is None


def test_gradient_of_the_kd_term_by_hand() -> None:
    # d/dz of T^2 KL(p || q) is T (q - p), divided by the batch: the reason for T^2
    task = classes(5)
    student, teacher, targets = example(task)
    student.requires_grad_()
    distill.create("kd", task).loss(batch(student, teacher, targets))["kd"].backward()
    q, p = (torch.softmax(x.detach().double() / 4, dim=1) for x in (student, teacher))
    assert torch.allclose(student.grad.double(), 0.9 * 4 * (q - p) / 6, atol=1e-6)


@pytest.mark.parametrize("task", [classes(2), classes(10), classes(1000)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_half_precision_is_finite_and_near(task: Task, scale: float) -> None:
    student, teacher, targets = example(task)
    student, teacher = scale * student, scale * teacher
    method = distill.create("kd", task)
    full = sum(method.loss(batch(student, teacher, targets)).values())
    half_student = student.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sum(method.loss(batch(half_student, teacher.bfloat16(), targets)).values())
    half.backward()
    assert torch.isfinite(half_student.grad).all()
    assert float(half.detach()) == pytest.approx(float(full), rel=0.05)


def test_supervised_is_the_tasks_loss_alone() -> None:
    for task in (classes(4), SCALAR):
        student, _, targets = example(task)
        method = distill.create("supervised", task)
        terms = method.loss(batch(student, None, targets))
        assert not method.needs_teacher
        assert {name: float(term) for name, term in terms.items()} == {"label": float(task.loss(student, targets))}


def test_an_unknown_method_is_named_with_what_is_allowed() -> None:
    with pytest.raises(UserError, match=r"'krd' is not known \(did you mean .*\); allowed: .*kd"):
        distill.create("krd", SCALAR)
