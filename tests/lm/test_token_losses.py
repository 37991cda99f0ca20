"""Losses over tokens, against loops in float64; ATKD in its original form; gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cgankd.lm import losses

B, L, V = 3, 5, 7


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """student, teacher [B, L, V], tokens, and which of them count (not those of a sequence's end)."""
    rng = torch.Generator().manual_seed(2)
    student, teacher = (2 * torch.randn(B, L, V, generator=rng) for _ in range(2))
    scored = torch.arange(L) < torch.tensor([5, 2, 4])[:, None]
    return student, teacher, torch.randint(0, V, (B, L), generator=rng), scored


def softmax(logits: Tensor) -> list[float]:
    raised = [math.exp(value) for value in logits.tolist()]
    return [value / sum(raised) for value in raised]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def places(scored: Tensor) -> list[tuple[int, int]]:
    return [(b, n) for b in range(B) for n in range(L) if scored[b, n]]


def test_cross_entropy(given: tuple[Tensor, ...]) -> None:
    student, _, tokens, scored = given
    expected = [-math.log(softmax(student[at])[int(tokens[at])]) for at in places(scored)]
    assert float(losses.cross_entropy(student, tokens, scored)) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd"])
def test_divergences(given: tuple[Tensor, ...], kind: str) -> None:
    student, teacher, _, scored = given
    expected = []
    for at in places(scored):
        s, t = softmax(student[at]), softmax(teacher[at])
        m = [(a + b) / 2 for a, b in zip(s, t, strict=True)]
        expected.append({"forward": kl(t, s), "reverse": kl(s, t), "jsd": (kl(t, m) + kl(s, m)) / 2}[kind])
    found = float(losses.divergence(student, teacher, scored, kind))
    assert found == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(losses.divergence(teacher, teacher, scored, kind)) == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_the_forward_divergence_is_the_difference_of_probabilities(
    given: tuple[Tensor, ...],
) -> None:
    student, teacher, _, scored = given
    student.requires_grad_()
    losses.divergence(student, teacher, scored).backward()  # type: ignore[no-untyped-call]
    expected = (student.detach().softmax(-1) - teacher.softmax(-1)) / scored.sum() * scored[..., None]
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize("easy", [0.2, 0.7])
def test_atkd_on_tokens(given: tuple[Tensor, ...], easy: float) -> None:
    """KL(b) + (1 - p_y) KL(q) is plain KL; easy tokens learn KL(q) alone, hard ones KL(b) + KL(q)."""
    student, teacher, tokens, scored = given
    doubts, binary, others = [], [], []
    for at in places(scored):
        s, t, y = softmax(student[at]), softmax(teacher[at]), int(tokens[at])
        rest = [[p for c, p in enumerate(of) if c != y] for of in (t, s)]
        doubts.append(1 - t[y])
        binary.append(kl([t[y], 1 - t[y]], [s[y], 1 - s[y]]))
        others.append(kl(*([p / sum(of) for p in of] for of in rest)))
        assert binary[-1] + doubts[-1] * others[-1] == pytest.approx(kl(t, s), rel=1e-6)
    middle = float(np.median(doubts))
    simple = [q for q, doubt in zip(others, doubts, strict=True) if doubt < middle]
    hard = [b + q for b, q, doubt in zip(binary, others, doubts, strict=True) if doubt >= middle]
    assert simple
    assert hard
    expected = easy * np.mean(simple) + (1 - easy) * np.mean(hard)
    assert float(losses.atkd(student, teacher, tokens, scored, easy)) == pytest.approx(expected, rel=1e-5)


def test_places_that_do_not_count_get_no_gradient(given: tuple[Tensor, ...]) -> None:
    student, teacher, tokens, scored = given
    student.requires_grad_()
    for loss in (
        losses.cross_entropy(student, tokens, scored),
        losses.divergence(student, teacher, scored, "jsd"),
        losses.atkd(student, teacher, tokens, scored),
    ):
        (slope,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(slope).all()
        assert torch.equal(slope.abs().sum(-1) > 0, scored)
