"""Each score against a second computation: scipy's matrix root, double loops, sets counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from cgankd.core import rng
from cgankd.metrics import fidelity


def gaussian(count: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Correlated normal vectors."""
    torch_rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    return scale * torch.randn(count, width, generator=torch_rng) @ mix + shift


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int) -> Tensor:
    """Vectors whose sample mean and covariance are exactly these."""
    x = np.random.default_rng(0).normal(size=(count, len(mean)))
    x = x - x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T @ np.linalg.cholesky(covariance).T + mean
    return torch.from_numpy(x)


# --- Fréchet distance ---------------------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians_has_its_closed_form() -> None:
    real = with_moments(np.array([0.0, 1.0, 2.0]), np.diag([4.0, 1.0, 9.0]), 50)
    fake = with_moments(np.array([1.0, 1.0, 0.0]), np.diag([1.0, 16.0, 9.0]), 40)
    expected = 1.0 + 4.0 + (2 - 1) ** 2 + (1 - 4) ** 2 + 0.0  # squared differences of means, then of deviations
    assert fidelity.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("real", "fake"), [(200, 150), (200, 12), (15, 12), (12, 200)])
def test_frechet_distance_equals_scipys_matrix_root(real: int, fake: int) -> None:
    width = 20  # more than some of the counts: singular covariances
    a, b = gaussian(real, width, 1).double(), gaussian(fake, width, 2, shift=0.3, scale=1.4).double()
    s, t = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.real(np.trace(sqrtm(s @ t)))
    mean = np.square(a.numpy().mean(axis=0) - b.numpy().mean(axis=0)).sum()
    expected = mean + np.trace(s) + np.trace(t) - 2 * root
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)  # sqrtm's own error


def test_frechet_distance_of_a_set_to_itself_is_zero_and_never_below() -> None:
    x = gaussian(100, 8, 3)
    assert fidelity.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)
    assert fidelity.frechet_distance(torch.ones(5, 3), torch.ones(7, 3)) == 0.0


# --- kernel distance ----------------------------------------------------------------------------------------------


def discrepancy_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1.0) ** 3)

    n = len(x)
    same = sum(k(x[i], x[j]) + k(y[i], y[j]) for i in range(n) for j in range(n) if i != j)
    return same / (n * (n - 1)) - 2 * sum(k(a, b) for a in x for b in y) / n**2


def test_squared_discrepancy_equals_double_loops() -> None:
    x, y = gaussian(9, 4, 1).double(), gaussian(9, 4, 2, shift=0.5).double()
    found = float(fidelity.squared_discrepancy(x, y))
    assert found == pytest.approx(discrepancy_by_loops(x.numpy(), y.numpy()), rel=1e-12)


def test_kernel_distance_is_the_mean_over_its_subsets() -> None:
    x, y = gaussian(30, 4, 1), gaussian(24, 4, 2, shift=0.5)
    values = []
    for number in range(fidelity.SUBSETS):
        rows = [
            rng.bits(7, stream, torch.tensor(number), torch.arange(n)).argsort()[:12]  # half of the smaller set
            for stream, n in (("kid/real", 30), ("kid/fake", 24))
        ]
        values.append(discrepancy_by_loops(x[rows[0]].double().numpy(), y[rows[1]].double().numpy()))
    mean, spread = fidelity.kernel_distance(x, y, seed=7)
    assert mean == pytest.approx(np.mean(values), rel=1e-9)
    assert spread == pytest.approx(np.std(values, ddof=1), rel=1e-9)


def test_kernel_distance_is_unbiased_where_frechet_distance_is_not() -> None:
    means, frechet = [], []
    for seed in range(40):
        a, b = gaussian(40, 10, 2 * seed), gaussian(40, 10, 2 * seed + 1)
        means.append(fidelity.kernel_distance(a, b, seed)[0])
        frechet.append(fidelity.frechet_distance(a, b))
    assert abs(np.mean(means)) < 3 * np.std(means, ddof=1) / 40**0.5
    assert min(frechet) > 0.1


# --- precision, recall, diversity ---------------------------------------------------------------------------------


def covered_by_loops(queries: np.ndarray, manifold: np.ndarray) -> float:
    inside = 0
    for query in queries:
        for centre in manifold:
            radius = np.sort(np.linalg.norm(manifold - centre, axis=1))[3]  # after itself
            if np.linalg.norm(query - centre) <= radius:
                inside += 1
                break
    return inside / len(queries)


def test_precision_and_recall_equal_loops() -> None:
    real, fake = gaussian(40, 3, 1), gaussian(30, 3, 2, shift=0.6, scale=0.7)
    precision, recall = fidelity.precision_recall(real, fake)
    assert precision == covered_by_loops(fake.numpy(), real.numpy())
    assert recall == covered_by_loops(real.numpy(), fake.numpy())
    assert precision != recall


def test_precision_and_recall_of_sets_by_hand() -> None:
    line = torch.arange(10.0)[:, None]  # each manifold ball: to the third neighbour, 2 (inside) or 3 (at an end)
    some = torch.tensor([[0.5], [1.5], [2.5], [3.5], [100.0], [101.0], [102.0], [103.0]])
    precision, recall = fidelity.precision_recall(line, some)
    assert precision == 4 / 8
    assert recall == 7 / 10  # 0 to 6: the ball of 3.5 reaches 0.5 to 6.5, that of 0.5 reaches back to -2.5
    assert fidelity.precision_recall(line, line + 1000.0) == (0.0, 0.0)


def test_mean_pairwise_distance_over_all_pairs_once() -> None:
    x = gaussian(12, 3, 5)
    pairs = [float((x[i] - x[j]).double().norm()) for i in range(12) for j in range(i)]
    assert fidelity.mean_pairwise_distance(x) == pytest.approx(np.mean(pairs), rel=1e-6)


def test_mean_pairwise_distance_of_sorted_rows() -> None:
    sorted_rows = torch.linspace(0.0, 1.0, 1000)[:, None]
    assert fidelity.mean_pairwise_distance(sorted_rows) == pytest.approx(1 / 3, rel=0.02)  # of two uniform numbers


def test_precision_and_recall_of_copies_are_one() -> None:
    vectors = (3 + 7 * torch.rand(40, 40, generator=torch.Generator().manual_seed(0))).repeat_interleave(8, 0)
    assert fidelity.precision_recall(vectors, vectors.flip(0)) == (1.0, 1.0)
