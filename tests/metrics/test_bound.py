"""The bound's terms by hand, and the lower bound on TV against distributions whose TV is known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from cgankd.metrics import bound
from cgankd.tasks import Classification, Regression

CLASSES = Classification(("a", "b"))


def pair(count: int, shift: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 3, generator=rng), torch.randn(count, 3, generator=rng)
    y[:, 0] += shift
    return x, y


def test_the_lower_bound_is_below_the_true_distance_and_near_it_with_many_images() -> None:
    shift = 1.5
    true = 2 * stats.norm.cdf(shift / 2) - 1  # TV of two normals of deviation 1
    found = bound.two_sample(*pair(1000, shift, 0), seed=0)
    assert 2 * found.accuracy - 1 == pytest.approx(true, abs=0.05)
    assert true - 0.1 < found.lower_bound < true
    assert found.images == 1000


def test_the_limit_is_clopper_and_pearsons() -> None:
    found = bound.two_sample(*pair(60, 1.0, 1), seed=0)
    right = round(found.accuracy * 120)
    low = stats.binomtest(right, 120, alternative="greater").proportion_ci(0.95, method="exact").low
    assert found.lower_bound == pytest.approx(2 * low - 1)


def test_equal_distributions_are_rarely_told_apart() -> None:
    accused = sum(bound.two_sample(*pair(40, 0.0, seed), seed=seed).lower_bound > 0 for seed in range(20))
    assert accused <= 3  # one in twenty, each


def test_few_images_prove_less_and_sizes_are_balanced() -> None:
    x, y = pair(300, 2.0, 2)
    few, many = bound.two_sample(x[:20], y, seed=0), bound.two_sample(x, y, seed=0)
    assert (few.images, many.images) == (20, 300)
    assert few.lower_bound < many.lower_bound
    assert bound.two_sample(x[:20], y, seed=0) == few


def test_terms_of_classes_by_hand() -> None:
    losses = torch.tensor([1.0, 0.0, 0.0, 0.0])
    found = bound.terms(
        CLASSES, real_images=100, processed_images=300, real_share=None, replaced=False,
        discrepancy=bound.TwoSample(0.9, 0.6, 50), teacher_loss=losses,
    )  # fmt: skip
    theta, real, processed, capacity, mismatch, teacher = found
    chance = [math.sqrt(math.log(80) / (2 * n)) for n in (100, 300)]  # delta = .05
    assert (theta["value"], theta["n"], theta["adds"]) == (0.25, 400, None)
    assert (real["value"], real["adds"]) == pytest.approx((chance[0], 2 * 0.25 * chance[0]))
    assert (processed["value"], processed["adds"]) == pytest.approx((chance[1], 2 * 0.75 * chance[1]))
    assert (capacity["value"], capacity["adds"], capacity["n"]) == (None, None, None)
    assert (mismatch["value"], mismatch["adds"], mismatch["n"]) == pytest.approx((0.6, 2 * 0.75 * 0.6, 50))
    assert (teacher["value"], teacher["adds"], teacher["n"]) == (0.25, None, 4)
    assert teacher["error"] == pytest.approx(0.5 / 2)  # sd of 1, 0, 0, 0 is 1/2
    assert "no term of this bound" in teacher["says"]
    assert bound.at_least(found) == pytest.approx(0.5 * chance[0] + 1.5 * chance[1] + 0.9)


def test_replaced_labels_cost_the_teachers_error_and_a_set_share_is_theta() -> None:
    found = bound.terms(
        Regression(0.0, 90.0, "degrees"), real_images=100, processed_images=300, real_share=0.4, replaced=True,
        discrepancy=None, teacher_loss=torch.full((8,), 0.1),
    )  # fmt: skip
    assert found[0]["value"] == 0.4
    assert "about 0.12" in found[-1]["says"]  # 2 (1 - .4) .1
    assert (found[4]["value"], found[4]["adds"], found[4]["n"]) == (None, None, None)
    assert "fewer than 10" in found[4]["says"]


def test_no_error_seen_is_not_no_error() -> None:
    (*_, teacher) = bound.terms(
        CLASSES, real_images=100, processed_images=300, real_share=None, replaced=False, discrepancy=None,
        teacher_loss=torch.zeros(20),
    )  # fmt: skip
    assert f"at most {math.sqrt(math.log(20) / 40):.2g} with confidence 95%" in teacher["says"]


def test_what_a_teacher_that_was_not_asked_leaves_open() -> None:
    (*_, teacher) = bound.terms(
        Classification(("a", "b")), real_images=10, processed_images=10, real_share=None, replaced=True,
        discrepancy=bound.TwoSample(0.9, 0.6, 50, "the NOKD student's features"), teacher_loss=None,
    )  # fmt: skip
    assert (teacher["value"], teacher["error"], teacher["adds"], teacher["n"]) == (None, None, None, None)
    assert teacher["says"] == "nothing: the teacher has no outputs for validation images"
