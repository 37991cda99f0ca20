"""Rejection sampling: the distribution that is left, prefix maxima, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cgankd.config.settings import MaximumRatio, QuantileRatio, RatioBudget
from cgankd.core.errors import TrainingError
from cgankd.synthesis.rejection import Rule, accept, budget_cap, dead_pools, effective_sample_share, first_maxima


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rising", [True, False])
def test_accepted_samples_follow_the_target(rising: bool) -> None:
    # fakes N(0.5, 1.2^2), wanted N(0, 1): the ratio is known and at most 1.594, at x = -1.136
    x = 0.5 + 1.2 * torch.randn(3, 8000, generator=rng(), dtype=torch.float64)
    ratio = torch.from_numpy(stats.norm.pdf(x.numpy()) / stats.norm.pdf(x.numpy(), 0.5, 1.2)).float()
    bound = 1.2 * np.exp(-(1.1364**2) / 2 + 1.6364**2 / 2.88)
    assert 0.999 * bound < float(ratio.max()) <= bound * (1 + 1e-6)
    kept, _ = accept(ratio, torch.full((3,), bound), torch.rand(3, 8000, generator=rng(1)), rising)
    assert stats.kstest(x[kept].numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue < 1e-6  # which the fakes did not
    assert float(kept.float().mean()) == pytest.approx(1 / bound, abs=4 * 0.5 / np.sqrt(24_000))


def test_the_scale_of_the_ratio_does_not_matter() -> None:
    ratio, draws = torch.rand(2, 500, generator=rng()), torch.rand(2, 500, generator=rng(1))
    one, _ = accept(ratio, ratio.amax(dim=1), draws, True)
    two, _ = accept(4 * ratio, 4 * ratio.amax(dim=1), draws, True)
    assert torch.equal(one, two)


def test_prefix_maximum_by_brute_force_and_in_any_blocks() -> None:
    ratio = 3 * torch.rand(4, 101, generator=rng()) ** 3
    draws = torch.rand(4, 101, generator=rng(1), dtype=torch.float64)
    first = torch.tensor([0.1, 1.0, 2.5, 10.0])
    expected, after = torch.zeros(4, 101, dtype=torch.bool), []
    for label in range(4):
        largest = float(first[label])
        for number in range(101):
            largest = max(largest, float(ratio[label, number]))
            expected[label, number] = float(draws[label, number]) < float(ratio[label, number]) / largest
        after.append(largest)
    whole, maxima = accept(ratio, first, draws, rising=True)
    assert torch.equal(whole, expected)
    assert maxima.tolist() == after
    for cuts in ([50, 51], [1, 7, 93], [1] * 101):
        parts, bound = [], first
        for part, uniform in zip(ratio.split(cuts, dim=1), draws.split(cuts, dim=1), strict=True):
            kept, bound = accept(part, bound, uniform, rising=True)
            parts.append(kept)
        assert torch.equal(torch.cat(parts, dim=1), expected)
        assert bound.tolist() == after


def test_a_cap_stays_and_ratios_above_it_are_always_kept() -> None:
    ratio = torch.tensor([[0.5, 1.0, 2.0, 100.0, 0.5]])
    draws = torch.tensor([[0.49, 0.99, 0.999, 0.999, 0.51]])
    kept, maxima = accept(ratio, torch.ones(1), draws, rising=False)
    assert kept.tolist() == [[True, True, True, True, False]]
    assert maxima.tolist() == [1.0]
    rising, maxima = accept(ratio, torch.ones(1), draws, rising=True)
    assert rising.tolist() == [[True, True, True, True, False]]
    assert maxima.tolist() == [100.0]
    kept, _ = accept(ratio, maxima, draws, rising=True)  # one outlier makes acceptance collapse
    assert kept.tolist() == [[False, False, False, True, False]]


def test_a_ratio_of_nought_is_never_kept() -> None:
    kept, _ = accept(torch.zeros(1, 3), torch.ones(1), torch.zeros(1, 3), rising=True)
    assert not kept.any()


@pytest.mark.parametrize("quantile", [1.0, 0.95, 0.5])
def test_first_maxima_are_quantiles_of_each_pool(quantile: float) -> None:
    ratio, pool = torch.rand(300, generator=rng()), torch.arange(300) % 3
    ratio = ratio * (pool + 1)
    policy = QuantileRatio(q=quantile) if quantile < 1 else MaximumRatio()
    found = first_maxima(ratio, pool, 3, Rule.of(policy))
    expected = [np.quantile(ratio[pool == number].double().numpy(), quantile) for number in range(3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rising", [True, False])
def test_where_all_burn_in_ratios_are_nought_all_are_accepted(rising: bool) -> None:
    ratios, pool = torch.tensor([0.0, 0.5, 0.0, 0.0]), torch.tensor([0, 0, 1, 1])
    maxima = first_maxima(ratios, pool, 2, Rule.of(MaximumRatio()))
    assert maxima.tolist() == [0.5, 0.0]
    assert dead_pools(ratios, pool).tolist() == [1]
    kept, after = accept(torch.tensor([[0.0, 0.0, 0.2, 0.0]]), maxima[1:], torch.full((1, 4), 0.5), rising)
    # a ratio above 0 that comes later is M from then on, if M rises
    assert kept.tolist() == [[True, True, True, not rising]]
    assert after.tolist() == pytest.approx([0.2 if rising else 0.0])


def test_a_quantile_of_nought_accepts_what_is_above_it() -> None:
    ratios = torch.tensor([0.0, 0.0, 0.0, 0.3, 0.2])
    assert first_maxima(ratios, torch.zeros(5).long(), 1, Rule.of(QuantileRatio(q=0.5))).tolist() == pytest.approx(
        [0.2]
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_ratio_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(TrainingError, match="the ratio of a burn-in fake is not finite; lower ratio"):
        first_maxima(torch.tensor([0.5, value]), torch.tensor([0, 1]), 2, Rule.of(MaximumRatio()))


def test_effective_sample_share_by_hand() -> None:
    assert effective_sample_share(torch.full((7,), 0.3)) == pytest.approx(1.0)
    assert effective_sample_share(torch.tensor([0.0, 0.0, 5.0, 0.0])) == pytest.approx(1 / 4)
    assert effective_sample_share(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(36 / (3 * 14))
    assert effective_sample_share(torch.zeros(3)) == 0.0


# --- a budget of draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1.0, 1.3, 2.0, 4.0, 25.0])
@pytest.mark.parametrize("shape", ["smooth", "heavy", "ties", "many zeros"])
def test_the_cap_of_a_budget_against_bisection(budget: float, shape: str) -> None:
    draws = np.random.default_rng(3)
    h = {
        "smooth": draws.gamma(2, 1, 301),
        "heavy": draws.pareto(1.1, 301) + 1e-3,
        "ties": draws.integers(1, 4, 301) + 0.0,
        "many zeros": np.where(draws.random(301) < 0.9, 0.0, draws.gamma(2, 1, 301)),
    }[shape]
    found = float(budget_cap(torch.from_numpy(h).float(), budget))
    h = h.astype(np.float32).astype(np.float64)

    def mean(cap: float) -> float:
        return np.minimum(1.0, h / cap).mean()

    low, high = 1e-12, h.max() * budget * 400
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if mean(middle) > 1 / budget else (low, middle)
    if (h > 0).mean() > 1 / budget:
        assert found == pytest.approx(low, rel=1e-5)
        assert mean(found) == pytest.approx(1 / budget, rel=1e-5)
    else:  # not so many ratios are above 0: all that are pass
        assert found == pytest.approx(h[h > 0].min(), rel=1e-6)
        assert mean(found) == pytest.approx((h > 0).mean(), rel=1e-6)


@pytest.mark.parametrize("policy", [RatioBudget(draws=1.4), RatioBudget(draws=3.0), QuantileRatio(q=0.7)])
def test_accepted_samples_follow_the_capped_ratio(policy: RatioBudget | QuantileRatio) -> None:
    # fakes N(0.5, 1.2^2), wanted N(0, 1): what is left has the density p_fake min(1, h / M) / acceptance
    x = 0.5 + 1.2 * torch.randn(2, 12_000, generator=rng(), dtype=torch.float64)
    ratio = torch.from_numpy(stats.norm.pdf(x.numpy()) / stats.norm.pdf(x.numpy(), 0.5, 1.2)).float()
    pool = torch.arange(2).repeat_interleave(12_000)
    maxima = first_maxima(ratio.flatten(), pool, 2, Rule.of(policy))
    kept, _ = accept(ratio, maxima, torch.rand(2, 12_000, generator=rng(1)), rising=False)
    if isinstance(policy, RatioBudget):
        assert float(kept.float().mean()) == pytest.approx(1 / policy.draws, abs=0.02)
    grid = np.linspace(-7, 8, 30_001)
    fake = stats.norm.pdf(grid, 0.5, 1.2)
    for row in range(2):
        density = fake * np.minimum(1.0, stats.norm.pdf(grid) / fake / float(maxima[row]))
        cumulative = np.cumsum(density) / density.sum()
        values = x[row][kept[row]].numpy()
        assert stats.kstest(values, lambda v, c=cumulative: np.interp(v, grid, c)).pvalue > 1e-3
    raw = x[0][:4000].numpy()
    assert stats.kstest(raw, lambda v: np.interp(v, grid, cumulative)).pvalue < 1e-3


def test_a_pool_for_which_there_is_no_fake_gets_one() -> None:
    found = first_maxima(torch.tensor([0.5, 2.0]), torch.tensor([0, 2]), 3, Rule.of(MaximumRatio()))
    assert found.tolist() == [0.5, 1.0, 2.0]
