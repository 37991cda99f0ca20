"""Methods on answers, classes or numbers (tbr, ckd, cmkd, cckd): against loops, numpy and scipy in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from forwards import SCALAR, classes, example, method, numbers, value
from scipy.special import softmax
from scipy.stats import entropy, pearsonr, spearmanr

from cgankd.distill import DistillBatch
from cgankd.distill.methods.ckd import difference
from cgankd.distill.methods.cmkd import soft_ranks
from cgankd.tasks import Task


def answers(task: Task, batch: DistillBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The student's, the teacher's and the label's, [B, K]."""
    assert batch.teacher_outputs is not None
    s, t = batch.outputs.detach().double().numpy(), batch.teacher_outputs.double().numpy()
    if task.continuous:
        return s, t, batch.targets.double().numpy()[:, None]
    return softmax(s, axis=1), softmax(t, axis=1), np.eye(task.num_outputs)[batch.targets.numpy()]


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_tbr_against_a_loop(margin: float) -> None:
    batch = example(SCALAR, 20)
    s, t, y = (x[:, 0] for x in answers(SCALAR, batch))
    right = [e if e + margin > bound else 0.0 for e, bound in zip((s - y) ** 2, (t - y) ** 2, strict=True)]
    assert 0 < np.count_nonzero(right) < 20
    assert value(method("tbr", SCALAR, margin=margin), batch) == pytest.approx(0.5 * np.mean(right), rel=1e-5)


def test_tbr_leaves_a_student_alone_that_is_better_than_its_teacher() -> None:
    batch = example(SCALAR, 20)
    sum(method("tbr", SCALAR).loss(batch).values()).backward()
    s, t, y = (x[:, 0] for x in answers(SCALAR, batch))
    better = np.abs(s - y) < np.abs(t - y)
    assert ((batch.outputs.grad[:, 0] == 0).numpy() == better).all()


@pytest.mark.parametrize("task", [classes(2), classes(5), classes(1000), SCALAR])
def test_ckd_against_all_pairs(task: Task) -> None:
    batch = example(task)
    s, t, y = answers(task, batch)
    pairs = list(itertools.permutations(range(len(s)), 2))
    to_teacher = np.mean([(((s[i] - s[j]) - (t[i] - t[j])) ** 2).sum() for i, j in pairs])
    to_label = np.mean([(((s[i] - s[j]) - (y[i] - y[j])) ** 2).sum() for i, j in pairs])
    terms = numbers(method("ckd", task, weight=2.0, anchor=0.5).loss(batch))
    assert terms["ckd"] == pytest.approx(2 * (to_teacher + to_label), rel=1e-4)
    assert terms["ckd_anchor"] == pytest.approx(0.5 * ((s - t) ** 2).sum(axis=1).mean(), rel=1e-4)


def test_groups_of_n_have_an_nth_of_the_pairs_loss() -> None:
    errors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for first in itertools.combinations(range(6), 2):  # every pair of disjoint groups of two
        for second in itertools.combinations(sorted(set(range(6)) - set(first)), 2):
            found.append(float((errors[list(first)].mean(0) - errors[list(second)].mean(0)).square().sum()))
    assert np.mean(found) == pytest.approx(float(difference(errors)) / 2, rel=1e-9)


def test_only_the_anchor_moves_a_common_shift() -> None:
    batch = example(SCALAR)
    terms = method("ckd", SCALAR).loss(batch)
    (of_differences,) = torch.autograd.grad(terms["ckd"], batch.outputs)
    (of_anchor,) = torch.autograd.grad(terms["ckd_anchor"], batch.outputs)
    assert float(of_differences.sum()) == pytest.approx(0.0, abs=1e-6)
    assert abs(float(of_anchor.sum())) > 1e-3


def test_soft_ranks_become_ranks() -> None:
    values = torch.tensor([[0.3, -1.0, 2.0, 0.9]])
    assert soft_ranks(values, 1e-3)[0].tolist() == pytest.approx([1.5, 0.5, 3.5, 2.5], abs=1e-4)
    assert soft_ranks(values, 1e-3).sum() == pytest.approx(8.0)  # whatever the softness, the sum is K^2 / 2
    assert soft_ranks(values, 0.5).sum() == pytest.approx(8.0)


@pytest.mark.parametrize("task", [classes(3), classes(6), SCALAR])
def test_cmkd_against_scipy(task: Task) -> None:
    batch = example(task, 9)
    s, t, _ = answers(task, batch)
    f_s, f_t = batch.outputs.detach().numpy(), batch.teacher_outputs.numpy()
    width = task.num_outputs
    hard = np.full(9, 0.5) if width == 1 else entropy(t, axis=1) / math.log(width)
    rows = [
        (1 - hard[i]) * (1 - pearsonr(s[i], t[i])[0]) + hard[i] * (1 - spearmanr(f_s[i], f_t[i])[0])
        for i in range(9)
        if width > 1
    ]
    columns = [
        (1 - hard.mean()) * (1 - pearsonr(s[:, c], t[:, c])[0]) + hard.mean() * (1 - spearmanr(f_s[:, c], f_t[:, c])[0])
        for c in range(width)
    ]
    terms = numbers(method("cmkd", task, softness=1e-4).loss(batch))
    assert terms["cmkd_inter"] == pytest.approx(2 * np.mean(rows) if rows else 0.0, rel=1e-3)
    assert terms["cmkd_intra"] == pytest.approx(2 * np.mean(columns), rel=1e-3)


def test_cmkd_ranks_the_teachers_top_classes_only() -> None:
    task, batch = classes(6), example(classes(6), 9)
    s, t, _ = answers(task, batch)
    hard, top = entropy(t, axis=1) / math.log(6), np.argsort(-t, axis=1)[:, :3]
    rows = [
        (1 - hard[i]) * (1 - pearsonr(s[i], t[i])[0])
        + hard[i] * (1 - spearmanr(s[i][top[i]], t[i][top[i]])[0])
        for i in range(9)
    ]  # fmt: skip
    terms = numbers(method("cmkd", task, softness=1e-4, top=3).loss(batch))
    assert terms["cmkd_inter"] == pytest.approx(2 * np.mean(rows), rel=1e-3)


def test_cmkd_is_nothing_for_a_scalar_that_is_a_line_of_the_teachers() -> None:
    batch = example(SCALAR)
    line = dataclasses.replace(batch, outputs=0.3 * batch.teacher_outputs + 0.5)
    assert value(method("cmkd", SCALAR), line) == pytest.approx(0.0, abs=1e-5)


def test_soft_ranks_have_a_gradient_that_raises_the_rank_correlation() -> None:
    batch = example(SCALAR, 30)
    made, outputs = method("cmkd", SCALAR), batch.outputs.detach().clone().requires_grad_()
    assert batch.teacher_outputs is not None
    before = spearmanr(outputs.detach()[:, 0], batch.teacher_outputs[:, 0])[0]
    for _ in range(50):
        (slope,) = torch.autograd.grad(sum(made.loss(dataclasses.replace(batch, outputs=outputs)).values()), outputs)
        outputs = (outputs - 0.05 * slope).detach().requires_grad_()
    after = spearmanr(outputs.detach()[:, 0], batch.teacher_outputs[:, 0])[0]
    assert after > before + 0.1 * (1 - before)


def cckd_by_loops(task: Task, batch: DistillBatch, scale: float, safe: float, target_form: bool) -> float:
    s, t, y = answers(task, batch)
    total = 0.0
    for i in range(len(s)):
        if task.continuous:
            trust = math.exp(-abs(min(max(t[i, 0], 0), 1) - y[i, 0]) / scale)
            if target_form:
                total += (s[i, 0] - (trust * t[i, 0] + (1 - trust) * y[i, 0])) ** 2
            else:
                total += trust * (s[i, 0] - t[i, 0]) ** 2 + (1 - trust) * (s[i, 0] - y[i, 0]) ** 2
            continue
        label = int(y[i].argmax())
        trust, margin = t[i, label], s[i, label] - np.delete(s[i], label).max()
        if margin >= safe:
            continue
        if target_form:
            mixed = trust * t[i] + (1 - trust) * y[i]
            total += -(mixed / mixed.sum() * np.log(s[i])).sum()
        else:
            soft = softmax(np.log(t[i]) / 4), softmax(np.log(s[i]) / 4)
            total += trust * 16 * entropy(*soft) + (1 - trust) * -math.log(s[i, label])
    return total / len(s)


@pytest.mark.parametrize("task", [classes(2), classes(4), classes(1000), SCALAR])
@pytest.mark.parametrize(("done", "epoch"), [(0.0, 1), (0.999, 240)])
@pytest.mark.parametrize("name", ["cckd", "cckd-target"])
def test_cckd_against_loops(task: Task, done: float, epoch: int, name: str) -> None:
    batch = example(task, 12, done=done)
    safe = 1 - math.exp(-0.01 * epoch)
    right = cckd_by_loops(task, batch, 0.3, safe, name == "cckd-target")
    assert value(method(name, task, scale=0.3), batch) == pytest.approx(right, rel=1e-4)


def test_skipped_images_give_no_gradient_and_later_fewer_are() -> None:
    task, skipped = classes(4), []
    for done in (0.0, 0.5, 0.999):
        batch = example(task, 40, scale=6.0, done=done)
        sum(method("cckd", task).loss(batch).values()).backward()
        s, _, y = answers(task, batch)
        label = y.argmax(axis=1)
        rest = np.where(y > 0, -1.0, s).max(axis=1)
        out = s[np.arange(40), label] - rest >= 1 - math.exp(-0.01 * (1 + math.floor(done * 240)))
        assert ((batch.outputs.grad == 0).all(dim=1).numpy() == out).all()
        skipped.append(out.sum())
    assert skipped[0] > skipped[1] > skipped[2] > 0


def test_a_teacher_that_is_wrong_is_not_believed() -> None:
    batch = example(SCALAR)
    wrong = dataclasses.replace(batch, teacher_outputs=1.0 - (batch.targets > 0.5).float()[:, None])
    own = float((batch.outputs.detach()[:, 0] - batch.targets).square().mean())
    assert value(method("cckd", SCALAR, scale=0.01), wrong) == pytest.approx(own, rel=1e-4)
    assert value(method("cckd-target", SCALAR, scale=0.01), wrong) == pytest.approx(own, rel=1e-4)
