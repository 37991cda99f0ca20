"""The held-out checks, on normal distributions whose ratio is known and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from cgankd.config.settings import MaximumRatio, NoSubsampling, QuantileRatio
from cgankd.synthesis import checks
from cgankd.synthesis.checks import calibration_error, check, fall_back, separability

REALS, FAKES = 500, 8


def normals(mean: float, deviation: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The true h on real N(0, 1) [N] and on fakes N(mean, deviation^2) [N, K]."""
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=REALS), rng.normal(mean, deviation, size=(REALS, FAKES))
    return tuple(torch.from_numpy(stats.norm.pdf(x) / stats.norm.pdf(x, mean, deviation)).float() for x in (real, fake))


def checked(h_real: Tensor, h_fake: Tensor, valid: Tensor | None = None, pools: int = 1) -> dict:
    everything = torch.ones(h_fake.shape, dtype=torch.bool)
    return check(h_real, h_fake, everything if valid is None else valid, 3 * (torch.arange(len(h_real)) % pools))


def test_the_true_ratio_passes() -> None:
    # N(0, 1) and N(0.5, 1.2^2): the ratio is at most 1.594
    found = checked(*normals(0.5, 1.2))
    assert found["passed"]
    assert found["reasons"] == []
    x = np.linspace(-9, 9, 4001)
    ratio = stats.norm.pdf(x) / stats.norm.pdf(x, 0.5, 1.2)
    on_real = integrate.trapezoid(ratio * stats.norm.pdf(x), x)
    assert found["mean_on_fakes"] == pytest.approx(1.0, abs=0.03)
    assert found["mean_on_real"] == pytest.approx(on_real, abs=0.05)
    assert found["effective_sample_share"] == pytest.approx(1 / on_real, abs=0.03)  # 1 / E_fake[h^2]
    assert found["calibration_error"] < 0.2


def test_separated_distributions_fail() -> None:
    found = checked(*normals(4.0, 1.0))
    assert not found["passed"]
    words = " ".join(found["reasons"])
    for part in ("real images is", "AUC 0.99", "of their number"):
        assert part in words
    settings, reasons = fall_back(MaximumRatio(), found)
    assert settings == NoSubsampling()
    assert reasons == found["reasons"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda h: 1.6 * h, "mean ratio of held-out fakes is 1.6"),
        (lambda h: 0.4 * h, "mean ratio of held-out fakes is 0.4"),
        (lambda h: 0.0 * h, "every held-out fake is 0"),
        (lambda h: (0.65 / h) ** 3, "off by a factor"),
    ],
)
def test_a_wrong_ratio_fails(wrong, word: str) -> None:
    h_real, h_fake = normals(0.8, 1.1)
    found = checked(wrong(h_real), wrong(h_fake))
    assert not found["passed"]
    assert any(word in reason for reason in found["reasons"])


def test_the_scale_of_a_pool_does_not_count() -> None:
    h_real, h_fake = normals(0.5, 1.2)
    scale = torch.tensor([0.7, 1.3, 1.0])[torch.arange(REALS) % 3]
    one, other = checked(h_real, h_fake, pools=3), checked(scale * h_real, scale[:, None] * h_fake, pools=3)
    for name in ("mean_on_real", "auc", "effective_sample_share", "calibration_error"):
        assert one[name] == pytest.approx(other[name], rel=1e-5)
    apart = checked(scale * h_real, scale[:, None] * h_fake)
    assert apart["effective_sample_share"] < other["effective_sample_share"] - 0.02


def test_a_small_pool_takes_the_mean_of_all() -> None:
    # pool 0 has one row, so fakes too few for a mean of its own
    h_fake = torch.full((100, 4), 1.0)
    h_fake[0] = 5.0
    pool = (torch.arange(100) > 0).long()
    found = check(torch.ones(100), h_fake, torch.ones(100, 4, dtype=torch.bool), pool)
    weight = torch.cat([torch.full((4,), 5 / 1.04), torch.ones(396)])
    assert found["effective_sample_share"] == pytest.approx(float(weight.sum() ** 2 / (400 * (weight**2).sum())))


def test_fakes_that_do_not_count_are_not_seen() -> None:
    h_real, h_fake = normals(0.5, 1.2)
    valid = torch.arange(FAKES).expand(REALS, FAKES) < FAKES // 2
    found, expected = (
        checked(h_real, fakes, mask)
        for fakes, mask in ((torch.where(valid, h_fake, 1e6), valid), (h_fake[:, : FAKES // 2], None))
    )
    assert found.pop("reasons") == expected.pop("reasons") == []
    assert found == pytest.approx(expected, rel=0.05)  # a fake that counts twice moves the edges of bins a little


def test_every_label_counts_the_same_however_many_of_its_fakes_are_valid() -> None:
    # The true h is .2 or 1.8 at odd labels, and 1 at even ones, where only one fake of eight is valid.
    rng, odd = np.random.default_rng(0), np.arange(REALS) % 2 == 1
    h_fake = np.where(odd[:, None], np.where(rng.random((REALS, FAKES)) < 0.5, 0.2, 1.8), 1.0)
    h_real = np.where(odd, np.where(rng.random(REALS) < 0.1, 0.2, 1.8), 1.0)  # p_real = h p_fake
    valid = torch.from_numpy(odd[:, None] | (np.arange(FAKES) == 3))
    found = checked(torch.from_numpy(h_real), torch.from_numpy(np.where(valid, h_fake, np.inf)), valid)
    assert found["calibration_error"] < 0.1
    assert found["passed"]
    assert found["effective_sample_share"] == pytest.approx(1 / (0.5 * 1 + 0.5 * (0.2**2 + 1.8**2) / 2), abs=0.02)


def test_separability_is_the_rank_statistic() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.integers(0, 6, 40) + 0.0, rng.integers(0, 5, 70) + 0.0  # with ties
    expected = stats.mannwhitneyu(real, fake).statistic / (40 * 70)
    assert separability(torch.from_numpy(real), torch.from_numpy(fake)) == pytest.approx(expected)


def test_calibration_error_by_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.gamma(2, 0.8, 59), rng.gamma(1, 1, 59)  # as many: the bins are plain quantiles of both
    both = np.sort(np.concatenate([real, fake]))
    edges = both[[math.ceil(k * 118 / 5) - 1 for k in range(1, 5)]]
    total = 0.0
    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True):
        observed = sum(low <= h < high for h in real)
        expected = sum(h for h in fake if low <= h < high)
        total += observed * abs(math.log((observed + 1) / (expected + 1)))
    found = calibration_error(torch.from_numpy(real), torch.from_numpy(fake))
    assert found == pytest.approx(total / 59)
    assert calibration_error(torch.from_numpy(real)[:19], torch.from_numpy(fake)) is None  # two bins of ten at least


def test_a_constant_ratio_of_one_is_calibrated() -> None:
    assert calibration_error(torch.ones(50, dtype=torch.float64), torch.ones(300, dtype=torch.float64)) == 0.0


def test_when_subsampling_falls_back() -> None:
    failed = {"passed": False, "reasons": ["Bad."]}
    own = QuantileRatio(q=0.9)
    assert fall_back(own, failed) == (NoSubsampling(), ["Bad."])
    assert fall_back(own, {"passed": True, "reasons": []}) == (own, [])
    assert fall_back(own, None) == fall_back(own, {"history": []}) == (own, [])  # nothing was checked
    for other in (QuantileRatio(fall_back=False), MaximumRatio(fall_back=False), NoSubsampling()):
        assert fall_back(other, failed) == (other, [])


def test_limits_are_where_they_are_said_to_be() -> None:
    assert math.exp(checks.CALIBRATION) == pytest.approx(2.0)
    s = 1 / (1 + math.exp(-checks.MEAN_ON_REAL))
    assert s * (1 - s) == pytest.approx(0.018, abs=5e-4)  # the gradient that is said to fade


def test_a_ratio_that_is_not_finite_fails() -> None:
    h_real, h_fake = torch.ones(20), torch.ones(20, 2)
    h_fake[3, 1] = torch.inf
    valid = torch.ones(20, 2, dtype=torch.bool)
    result = check(h_real, h_fake, valid, torch.zeros(20).long())
    assert result == {
        "passed": False,
        "reasons": ["The ratio of a held-out image is not finite; allowed: finite numbers."],
    }
    valid[3, 1] = False  # one that does not count is not seen
    assert check(h_real, h_fake, valid, torch.zeros(20).long())["passed"]
