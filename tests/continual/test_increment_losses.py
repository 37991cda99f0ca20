"""The losses of a task against plain loops: cross-entropy on the new classes, global and task-wise distillation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cgankd.continual.losses import GlobalKD, Increment, TaskwiseKD
from cgankd.distill import DistillBatch, Objective

NAMES = tuple("abcdef")
T, WEIGHT = 2.0, 10.0


def logits(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def divergence(old: list[float], new: list[float]) -> float:
    """KL of one image's softened answers."""
    pairs = zip(softmax([o / T for o in old]), softmax([n / T for n in new]), strict=True)
    return sum(p * math.log(p / q) for p, q in pairs)


def seen(outputs: Tensor, old: Tensor | None, first: int = 4) -> DistillBatch:
    targets = torch.arange(len(outputs)) % 2 + first
    return DistillBatch(outputs, targets, old, {}, {}, torch.zeros(len(outputs), dtype=torch.bool))


@pytest.mark.parametrize("first", [0, 2, 4])
def test_the_labels_loss_compares_the_new_classes_alone(first: int) -> None:
    outputs, targets = logits(5, 6, 0).requires_grad_(), torch.tensor([4, 5, 4, 4, 5])
    loss = Increment(NAMES, first).loss(outputs, targets)
    rows = zip(outputs.tolist(), targets.tolist(), strict=True)
    by_hand = [-math.log(softmax(row[first:])[y - first]) for row, y in rows]
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / 5, rel=1e-12)
    loss.backward()
    assert outputs.grad is not None
    assert not outputs.grad[:, :first].any()
    assert outputs.grad[:, first:].all()


def test_predictions_are_among_all_classes_so_far() -> None:
    outputs = torch.tensor([[9.0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1.0]])
    assert Increment(NAMES, 4).score(outputs, torch.tensor([4, 5])).tolist() == [0.0, 100.0]


def test_global_kd_is_one_divergence_over_all_old_outputs() -> None:
    outputs, old = logits(7, 6, 1).requires_grad_(), logits(7, 4, 2)
    loss = GlobalKD(Increment(NAMES, 4), 2, T, WEIGHT).loss(seen(outputs, old))["gkd"]
    by_hand = [divergence(o, n[:4]) for o, n in zip(old.tolist(), outputs.tolist(), strict=True)]
    assert float(loss.detach()) == pytest.approx(WEIGHT * sum(by_hand) / 7, rel=1e-12)

    # The paper writes -sum p log q: its gradient by output i is lambda (q_i - p_i) / (B T).
    loss.backward()
    assert outputs.grad is not None
    for gradient, o, n in zip(outputs.grad.tolist(), old.tolist(), outputs.tolist(), strict=True):
        p, q = softmax([value / T for value in o]), softmax([value / T for value in n[:4]])
        expected = [WEIGHT * (b - a) / (7 * T) for a, b in zip(p, q, strict=True)]
        assert gradient == pytest.approx([*expected, 0.0, 0.0], abs=1e-12)


def test_taskwise_kd_sums_the_old_tasks_own_divergences() -> None:
    outputs, old = logits(7, 6, 3), logits(7, 4, 4)
    loss = TaskwiseKD(Increment(NAMES, 4), 2, T, WEIGHT).loss(seen(outputs, old))["tkd"]
    by_hand = 0.0
    for o, n in zip(old.tolist(), outputs.tolist(), strict=True):
        for start in (0, 2):
            by_hand += T**2 * divergence(o[start : start + 2], n[start : start + 2])
    assert float(loss) == pytest.approx(WEIGHT * by_hand / 7, rel=1e-12)
    # Task-wise it doesn't matter by how much one task's outputs lie above another's; globally it does.
    shifted = outputs + torch.tensor([5.0, 5, 0, 0, 0, 0])
    again = TaskwiseKD(Increment(NAMES, 4), 2, T, WEIGHT).loss(seen(shifted, old))["tkd"]
    assert float(again) == pytest.approx(float(loss), rel=1e-9)
    both = (GlobalKD(Increment(NAMES, 4), 2, T, WEIGHT).loss(seen(o, old))["gkd"] for o in (outputs, shifted))
    assert abs(float(next(both)) - float(next(both))) > 1.0


def test_the_objective_is_their_sum() -> None:
    outputs, old = logits(4, 6, 5), logits(4, 4, 6)
    increment = Increment(NAMES, 4)
    method = GlobalKD(increment, 2, T, WEIGHT)
    batch = seen(outputs, old)
    terms = Objective("gkd", increment, [(method, None)]).loss(batch)
    assert set(terms) == {"label", "gkd"}
    assert float(terms["label"]) == pytest.approx(float(increment.loss(outputs, batch.targets)), rel=1e-12)
    assert float(terms["gkd"]) == pytest.approx(float(method.loss(batch)["gkd"]), rel=1e-12)


@pytest.mark.parametrize("kind", [GlobalKD, TaskwiseKD])
def test_an_unchanged_network_is_not_pulled(kind: type[GlobalKD]) -> None:
    old = logits(3, 4, 7)
    outputs = torch.cat([old, logits(3, 2, 8)], dim=1).requires_grad_()
    kind(Increment(NAMES, 4), 2, T, WEIGHT).loss(seen(outputs, old))[kind.name].backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().max() < 1e-12


@pytest.mark.parametrize("kind", [GlobalKD, TaskwiseKD])
@pytest.mark.parametrize(("old", "width"), [(2, 2), (1000, 10)])
@pytest.mark.parametrize("sure", [1.0, 50.0])
def test_few_and_a_thousand_old_classes(kind: type[GlobalKD], old: int, width: int, sure: float) -> None:
    before = (sure * logits(5, old, 9)).to(torch.bfloat16).float()  # as autocast rounds them
    outputs = (sure * logits(5, old + width, 10)).to(torch.bfloat16).float().requires_grad_()
    task = Increment(tuple(map(str, range(old + width))), old)
    loss = kind(task, width, T, WEIGHT).loss(seen(outputs, before, first=old))[kind.name]
    loss.backward()
    assert float(loss.detach()) > 0
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()
    assert outputs.grad[:, :old].any(dim=0).all() or sure > 1  # of sure networks some shares are 0
    assert not outputs.grad[:, old:].any()
