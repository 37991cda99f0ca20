"""CcGAN's vicinity: every draw against a plain loop over the images, widths and weights by hand.

Labels are multiples of 1/256 where a window's edge falls on a label, so that float32 arithmetic is exact there.
"""

from __future__ import annotations

import bisect

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from cgankd.config.settings import HardVicinity, ScalarLabelSettings, SoftVicinity
from cgankd.labels.vicinity import SOFT_REACH, Vicinity, VicinityDraw


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dyadic(count: int, seed: int = 0, distinct: int = 256) -> torch.Tensor:
    """``count`` labels k / 256, in no order, with many ties."""
    return torch.randint(0, distinct + 1, (count,), generator=rng(seed)).float() / 256


KINDS = {"hard": HardVicinity, "soft": SoftVicinity}


def draw(
    labels: torch.Tensor, size: int, seed: int = 0, kind: str = "hard", **settings
) -> tuple[Vicinity, VicinityDraw]:
    vicinity = Vicinity(labels, KINDS[kind](**settings))
    return vicinity, vicinity.draw(size, rng(seed))


def brute_half_width(labels: np.ndarray, target: float, neighbours: int, widest: float) -> float:
    """The robust rule, one target at a time."""
    nearest = sorted(abs(labels - target))[min(neighbours, len(labels)) - 1]
    distinct = sorted(set(labels))
    if target < distinct[0]:
        spacing = distinct[1] - distinct[0]
    elif target >= distinct[-1]:
        spacing = distinct[-1] - distinct[-2]
    else:
        at = bisect.bisect_right(distinct, target)
        spacing = max(target - distinct[at - 1], distinct[at] - target)
    return min(max(nearest, spacing), widest)


WIDTHS = [
    {"kind": "robust", "neighbours": 10}, {"kind": "robust", "neighbours": 30, "widest": 0.04},
    {"kind": "robust", "neighbours": 1}, {"kind": "paper", "gaps": 2.0},
]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_real_images_are_uniform_over_the_window(width: dict, kind: str) -> None:
    # Without noise the targets are the distinct labels; each one's images are listed by a plain loop.
    labels = dyadic(60, distinct=40)
    vicinity, found = draw(labels, 40_000, kind=kind, noise=0.0, width=width)
    statistic, freedom = 0.0, 0
    for target in vicinity.distinct.tolist():
        here = found.target == target
        half = float(vicinity.half_width(torch.tensor([target])))
        reach = half * np.sqrt(np.log(1000)) if kind == "soft" else half
        window = [row for row, label in enumerate(labels.tolist()) if abs(label - target) <= reach]
        counts = torch.bincount(found.real[here], minlength=len(labels)).numpy()
        assert counts.sum() == counts[window].sum()  # nothing from outside
        expected = counts.sum() / len(window)
        statistic += ((counts[window] - expected) ** 2 / expected).sum()
        freedom += len(window) - 1
    assert stats.chi2.sf(statistic, freedom) > 1e-3 or freedom == 0
    assert freedom > 10


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_noisy_targets_get_images_and_fake_labels_inside_their_window(width: dict, kind: str) -> None:
    labels = torch.rand(200, generator=rng(3)) ** 2  # uneven: many near 0
    vicinity, found = draw(labels, 3000, kind=kind, noise=0.05, width=width)
    reach = vicinity.reach(vicinity.half_width(found.target))
    inside = (labels - found.target[:, None]).abs() <= reach[:, None] + 1e-6  # [B, N], every image looked at
    assert inside[torch.arange(3000), found.real].all()
    low, high = (found.target - reach).clamp(0, 1), (found.target + reach).clamp(0, 1)
    assert (found.fake >= low - 1e-6).all()
    assert (found.fake <= high + 1e-6).all()
    place = ((found.fake - low) / (high - low)).double().numpy()
    assert stats.kstest(place, "uniform").pvalue > 1e-3


def test_targets_are_even_over_the_distinct_labels_not_over_the_images() -> None:
    labels = torch.cat([torch.zeros(900), torch.linspace(0.25, 1.0, 4)])  # a heap at 0
    vicinity, found = draw(labels, 20_000, noise=0.0)
    counts = [(found.target == label).sum().item() for label in vicinity.distinct]
    assert len(counts) == 5
    assert stats.chisquare(counts).pvalue > 1e-3


def test_noise_has_the_asked_spread() -> None:
    labels = torch.full((50,), 0.5)
    labels[0] = 0.5 + 1 / 256
    vicinity = Vicinity(labels, HardVicinity(noise=0.03, width={"widest": 0.5}))
    offset = vicinity.noisy(20_000, rng()) - 0.5 - 1 / 512
    spread = np.sqrt(0.03**2 + (1 / 512) ** 2)
    assert float(offset.std()) == pytest.approx(spread, rel=0.03)
    assert float(offset.mean()) == pytest.approx(0.0, abs=4 * spread / np.sqrt(20_000))


def test_soft_weights_and_no_hard_ones() -> None:
    labels = dyadic(300)
    for width in WIDTHS:
        vicinity, found = draw(labels, 2000, kind="soft", noise=0.02, width=width)
        kappa = vicinity.half_width(found.target).double().numpy()
        for where, weight in [(labels[found.real], found.real_weight), (found.fake, found.fake_weight)]:
            distance = where.double().numpy() - found.target.double().numpy()
            assert weight.numpy() == pytest.approx(np.exp(-(distance**2) / kappa**2), rel=1e-3)
            assert weight.min() > 0.99e-3  # below, an image is ignored
            assert weight.max() <= 1.0
        _, hard = draw(labels, 10, kind="hard", width=width)
        assert hard.real_weight is None
        assert hard.fake_weight is None


def test_the_soft_window_ends_where_the_weight_is_a_thousandth() -> None:
    vicinity = Vicinity(dyadic(50), SoftVicinity())
    assert float(vicinity.reach(torch.tensor([1.0]))) == pytest.approx(np.sqrt(np.log(1000)), rel=1e-4)
    hard = Vicinity(dyadic(50), HardVicinity())
    assert float(hard.reach(torch.tensor([1.0]))) == 1.0


@pytest.mark.parametrize("neighbours", [1, 2, 10, 50, 1000])
@pytest.mark.parametrize("widest", [0.02, 0.1, 1.0])
def test_robust_half_width_against_brute_force(neighbours: int, widest: float) -> None:
    labels = torch.cat([dyadic(80, seed=1, distinct=100), torch.full((40,), 0.125), torch.tensor([1.0])])
    vicinity = Vicinity(labels, HardVicinity(width={"neighbours": neighbours, "widest": widest}))
    targets = torch.cat([labels, torch.rand(300, generator=rng(2)) * 1.2 - 0.1])
    array = labels.double().numpy()
    expected = [brute_half_width(array, target, neighbours, widest) for target in targets.double().tolist()]
    assert vicinity.half_width(targets).numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_one_outlying_label_does_not_widen_other_targets_windows() -> None:
    labels = dyadic(400, distinct=100)  # 0 to 0.39
    targets = labels.unique()[:-1]
    settings = HardVicinity(width={"neighbours": 20})
    without = Vicinity(labels, settings).half_width(targets)
    outlier = Vicinity(torch.cat([labels, torch.ones(1)]), settings)
    assert torch.equal(outlier.half_width(targets), without)
    assert without.max() < 0.06
    paper = Vicinity(torch.cat([labels, torch.ones(1)]), HardVicinity(width={"kind": "paper", "gaps": 5.0}))
    assert float(paper.half_width(targets)[0]) > 1.0  # what the robust rule is there to avoid


def test_a_heap_at_one_value_does_not_widen_or_empty_a_window() -> None:
    grid = torch.arange(257) / 256
    labels = torch.cat([grid, torch.full((2000,), 0.5)])
    vicinity = Vicinity(labels, HardVicinity(width={"neighbours": 30}))
    # at the heap its images are at distance 0, so the spacing counts; far away it is 15 steps to hold 30 (or 29)
    found = vicinity.half_width(torch.tensor([0.5, 0.25])).tolist()
    assert found == [1 / 256, 15 / 256]


def test_paper_rule_by_hand() -> None:
    # distinct labels 0, .125, .375, .875, 1: the widest gap is .5; k = 3 gives 1.5
    labels = torch.tensor([0.875, 0.0, 0.125, 0.125, 1.0, 0.375])
    vicinity = Vicinity(labels, HardVicinity(width={"kind": "paper", "gaps": 3.0}))
    assert vicinity.half_width(torch.tensor([0.0, 0.6])).tolist() == [1.5, 1.5]
    many = torch.rand(5000, generator=rng())
    sigma = 1.06 * np.std(many.double().numpy()) * 5000 ** (-1 / 5)
    assert Vicinity(many, HardVicinity()).noise == pytest.approx(sigma, rel=1e-3)
    assert Vicinity(many, HardVicinity(noise=0.25)).noise == 0.25


def test_an_empty_window_redraws_the_noise_only() -> None:
    # 21 labels close together and one alone at .9. Windows of .7 k = .014; with noise of .05 about a fifth of the
    # targets around .9 hit one. If the label were drawn anew too, .9 would come up five times too seldom.
    labels = torch.cat([torch.linspace(0.0, 0.2, 21), torch.tensor([0.9])])
    size = 20_000
    _vicinity, found = draw(labels, size, width={"kind": "paper", "gaps": 0.02}, noise=0.05)
    kappa = 0.02 * 0.7
    distance = (found.target[:, None] - labels).abs().min(dim=1).values
    assert distance.max() <= kappa + 1e-6
    alone = (found.target - 0.9).abs() <= kappa + 1e-6
    assert stats.binomtest(int(alone.sum()), size, 1 / 22).pvalue > 1e-3
    assert (found.real[alone] == 21).all()
    # what is left of the noise is a normal cut at kappa
    offset = (found.target[alone] - 0.9).double().numpy() / 0.05
    assert stats.kstest(offset, stats.truncnorm(-kappa / 0.05, kappa / 0.05).cdf).pvalue > 1e-3


def test_noise_that_never_hits_falls_back_to_the_label_itself() -> None:
    labels = torch.tensor([0.25, 0.5, 0.5, 0.75])
    _, found = draw(labels, 500, width={"kind": "paper", "gaps": 0.1}, noise=1e6)
    assert set(found.target.tolist()) == {0.25, 0.5, 0.75}
    assert torch.equal(labels[found.real], found.target)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_windows_at_the_borders_are_clipped(kind: str) -> None:
    labels = torch.arange(101) / 100
    vicinity, found = draw(labels, 5000, kind=kind, noise=0.05, width={"neighbours": 10})
    assert found.fake.min() >= 0
    assert found.fake.max() <= 1
    below, above = found.target < 0, found.target > 1
    assert below.any()
    assert above.any()
    reach = vicinity.reach(vicinity.half_width(found.target))
    assert (found.fake[below] <= (found.target + reach)[below] + 1e-6).all()
    assert (found.fake[above] >= (found.target - reach)[above] - 1e-6).all()


@pytest.mark.parametrize("how", ["uniform", "weighted"])
def test_equal_labels_weigh_one(how: str) -> None:
    drawn = draw(torch.full((5,), 0.5), 8, kind="soft", noise=0.0, draw=how)[1]
    assert drawn.fake.tolist() == [0.5] * 8
    if how == "uniform":
        assert drawn.real_weight.tolist() == drawn.fake_weight.tolist() == [1.0] * 8


def test_two_labels_are_the_fewest() -> None:
    with pytest.raises(ValueError, match="at least two"):
        Vicinity(torch.zeros(1), HardVicinity())


# --- soft windows drawn by weight ---------------------------------------------------------------------------------

SOFT_WIDTHS = [
    {"kind": "robust", "neighbours": 10},
    {"kind": "robust", "neighbours": 1},
    {"kind": "paper", "gaps": 2.0},
]


@pytest.mark.parametrize("width", SOFT_WIDTHS)
def test_weighted_real_images_come_as_often_as_their_weight(width: dict) -> None:
    labels = dyadic(60, distinct=40)  # with ties
    vicinity, found = draw(labels, 40_000, kind="soft", draw="weighted", noise=0.0, width=width)
    assert found.real_weight is None
    assert found.fake_weight is None
    statistic, freedom = 0.0, 0
    for target in vicinity.distinct.tolist():
        kappa = float(vicinity.half_width(torch.tensor([target])))
        weights = np.array([np.exp(-(((label - target) / kappa) ** 2)) for label in labels.tolist()])
        weights[weights < 1e-3] = 0.0  # ignored
        counts = torch.bincount(found.real[found.target == target], minlength=len(labels)).numpy()
        assert counts[weights == 0].sum() == 0
        expected = counts.sum() * weights / weights.sum()
        enough = expected > 5
        assert enough.any()
        statistic += ((counts[enough] - expected[enough]) ** 2 / expected[enough]).sum()
        freedom += enough.sum() - 1
    assert freedom > 10
    assert stats.chi2.sf(statistic, freedom) > 1e-3


def test_weighted_images_under_noise_against_a_plain_loop_over_targets() -> None:
    # Every target has its own window; the chance of the drawn image or one with a smaller label is uniform.
    labels = torch.rand(80, generator=rng(3)) ** 2
    vicinity, found = draw(labels, 2000, kind="soft", draw="weighted", noise=0.05, width={"neighbours": 8})
    kappa = vicinity.half_width(found.target).double().numpy()
    array, shares = labels.double().numpy(), []
    for target, width, row in zip(found.target.double().numpy(), kappa, found.real.tolist(), strict=True):
        weights = np.where(abs(array - target) <= width * SOFT_REACH, np.exp(-(((array - target) / width) ** 2)), 0)
        weights /= weights.sum()
        assert weights[row] > 0
        below = weights[array < array[row]].sum()
        shares.append(below + np.random.default_rng(row).random() * weights[row])
    assert stats.kstest(shares, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("width", SOFT_WIDTHS)
def test_weighted_fake_labels_are_from_the_truncated_normal(width: dict) -> None:
    labels = torch.rand(200, generator=rng(3)) ** 2
    vicinity, found = draw(labels, 3000, kind="soft", draw="weighted", noise=0.05, width=width)
    target, kappa = found.target.double().numpy(), vicinity.half_width(found.target).double().numpy()
    scale = kappa / np.sqrt(2)  # exp(-d^2 / kappa^2) is the normal density of that standard deviation
    low, high = np.clip(target - kappa * SOFT_REACH, 0, 1), np.clip(target + kappa * SOFT_REACH, 0, 1)
    assert (low == 0).any()  # cut at the border of the label range too
    fake = found.fake.double().numpy()
    assert (fake >= low - 1e-6).all()
    assert (fake <= high + 1e-6).all()
    below = stats.truncnorm.cdf(fake, (low - target) / scale, (high - target) / scale, loc=target, scale=scale)
    assert stats.kstest(below, "uniform").pvalue > 1e-3


def test_a_weighted_draw_is_the_weighted_loss_in_expectation() -> None:
    # One target: the mean of f over weighted draws is the weighted mean of f over uniform draws.
    labels = dyadic(300)
    uniform = Vicinity(labels, SoftVicinity(noise=0.0, width={"kind": "paper", "gaps": 8.0}))
    weighted = Vicinity(labels, SoftVicinity(noise=0.0, width={"kind": "paper", "gaps": 8.0}, draw="weighted"))
    one, other = uniform.draw(20_000, rng(1)), weighted.draw(20_000, rng(2))
    target = float(uniform.distinct[40])
    here, there = one.target == target, other.target == target
    for values, weights, drawn in [
        (labels[one.real], one.real_weight, labels[other.real]),
        (one.fake, one.fake_weight, other.fake),
    ]:
        expected = (values[here] * weights[here]).sum() / weights[here].sum()
        spread = float(drawn[there].std()) / np.sqrt(int(there.sum()))
        assert float(drawn[there].mean()) == pytest.approx(float(expected), abs=6 * spread)
        assert float(drawn[there].std()) < 0.7 * float(values[here].std())  # without the weights it is wider


@pytest.mark.parametrize("how", ["uniform", "weighted"])
def test_hard_windows_have_no_weights_to_draw_by(how: str) -> None:
    with pytest.raises(ValidationError, match=r"vicinity\.hard\.draw"):
        ScalarLabelSettings(vicinity={"kind": "hard", "draw": how})
    assert ScalarLabelSettings(vicinity={"kind": "soft", "draw": how}).vicinity == SoftVicinity(draw=how)
