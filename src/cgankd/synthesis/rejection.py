"""Rejection sampling with the density ratio, per label (paper, algorithm of M1; method of arXiv 1810.06758)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cgankd.config.settings import MaximumRatio, QuantileRatio, RatioBudget
from cgankd.core.errors import TrainingError
from cgankd.core.groups import in_groups


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """Accept with probability h / M. maxima: float32 [L], M of each label. rising: whether M grows with each larger
    ratio that is drawn."""

    maxima: Tensor
    rising: bool


@dataclasses.dataclass(frozen=True)
class Rule:
    """How M is computed from the burn-in. kind: of the setting ``subsampling``; number: its quantile, or its draws."""

    kind: str
    number: float = 0.0

    @classmethod
    def of(cls, settings: MaximumRatio | QuantileRatio | RatioBudget) -> Rule:
        """The rule of the settings."""
        if isinstance(settings, QuantileRatio):
            return cls(settings.kind, settings.q)
        return cls(settings.kind, settings.draws if isinstance(settings, RatioBudget) else 0.0)

    @property
    def rising(self) -> bool:
        """Whether M grows with each larger ratio that is drawn later."""
        return self.kind == "maximum"


def first_maxima(ratios: Tensor, pool: Tensor, pools: int, rule: Rule) -> Tensor:
    """M of each label pool, float32 [pools]; a fake is then accepted with probability min(1, h / M).

    ratios: float32 [B] of burn-in fakes; pool: int64 [B]. M is the largest ratio of the pool, a quantile, or
    :func:`budget_cap`. A pool without fakes, because the generator holds no image for it, gets 1; one whose ratios
    are all 0 gets 0, with which all are accepted. Raises TrainingError for a ratio that is not finite.
    """
    if not torch.isfinite(ratios).all():
        raise TrainingError(
            "density ratio: the ratio of a burn-in fake is not finite; lower ratio.learning_rate, or set "
            "synthesis.subsampling=none"
        )
    maxima = torch.ones(pools)
    for number, inside in enumerate(in_groups(ratios, pool, pools)):
        if not len(inside):
            continue
        if not bool((inside > 0).any()):
            maxima[number] = 0.0
        elif rule.kind == "budget":
            maxima[number] = budget_cap(inside, rule.number)
        else:  # a quantile may be 0 where some ratios are not; then all that are above 0 are accepted
            quantile = torch.quantile(inside, rule.number if rule.kind == "quantile" else 1.0)
            maxima[number] = torch.maximum(quantile, inside[inside > 0].min())
    return maxima


def dead_pools(ratios: Tensor, pool: Tensor) -> Tensor:
    """The label pools whose burn-in fakes all have ratio 0, int64. ratios: float32 [B]; pool: int64 [B]."""
    alive = pool[ratios > 0].unique()
    numbers = pool.unique()
    return numbers[~torch.isin(numbers, alive)]


def budget_cap(ratios: Tensor, budget: float) -> Tensor:
    """M at which the mean of min(1, h / M) is 1 / ``budget``, float32, for ratios [n] that are not all 0.

    The mean is piecewise linear in 1 / M: with the k largest ratios capped at 1 it is (k + (sum of the others) / M) /
    n, so M is exact. Where fewer than n / ``budget`` ratios are above 0, all of these are accepted.
    """
    h = ratios.double().cpu().sort(descending=True).values
    left = len(h) / budget - torch.arange(len(h), dtype=torch.float64)  # what (sum of the others) / M must be
    others = h.flip(0).cumsum(0).flip(0)
    caps = others[left > 0] / left[left > 0]
    first = int((caps >= h[left > 0] * (1 - 1e-12)).float().argmax())  # the first k whose next ratio is not above M
    return torch.maximum(caps[first], h[h > 0].min()).float()


def accept(ratios: Tensor, maxima: Tensor, draws: Tensor, rising: bool) -> tuple[Tensor, Tensor]:
    """Which proposals are accepted, and the maxima after them.

    ratios: float32 [L, n], proposals of L labels in the order of their index. maxima: float32 [L]. draws: uniform
    [L, n]. A proposal is accepted with probability min(1, h / M), and always while M is 0. If ``rising``, M is the
    largest ratio up to this index, so the result does not depend on the batch size; else M is constant.
    """
    if rising:
        bound = torch.cummax(torch.cat([maxima[:, None], ratios], dim=1), dim=1).values[:, 1:]
    else:
        bound = maxima[:, None].expand_as(ratios)
    return (draws * bound < ratios) | (bound == 0), bound[:, -1]


def effective_sample_share(ratios: Tensor) -> float:
    """(sum h)^2 / (n sum h^2), the effective sample size over n: 1 for equal ratios, 1/n if only one is above 0.

    ratios: [n], 0 or more; 0 is returned if all are 0.
    """
    total = ratios.double()
    squares = float((total**2).sum()) * len(total)
    return float(total.sum()) ** 2 / squares if squares else 0.0
