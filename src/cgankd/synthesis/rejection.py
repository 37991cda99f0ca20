"""Rejection sampling by the density ratio, per label (paper, Algorithm for M1; Goodfellow et al., 1810.06758)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cgankd.config.settings import MaximumRatio, QuantileRatio, RatioBudget
from cgankd.core.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """The rule h / M. maxima: float32 [L], M of each label; rising: M is the largest ratio so far, else it stays."""

    maxima: Tensor
    rising: bool


@dataclasses.dataclass(frozen=True)
class Rule:
    """How M is taken of the burn-in. kind: of the setting ``subsampling``; number: the quantile, or the draws."""

    kind: str
    number: float = 0.0

    @classmethod
    def of(cls, settings: MaximumRatio | QuantileRatio | RatioBudget) -> Rule:
        """What the settings say of it."""
        if isinstance(settings, QuantileRatio):
            return cls(settings.kind, settings.q)
        return cls(settings.kind, settings.draws if isinstance(settings, RatioBudget) else 0.0)

    @property
    def rising(self) -> bool:
        """Whether M rises with what is drawn later."""
        return self.kind == "maximum"


def first_maxima(ratios: Tensor, pool: Tensor, pools: int, rule: Rule) -> Tensor:
    """M of each label pool, float32 [pools]; a fake is then accepted with probability min(1, h / M).

    ratios: float32 [B] of burn-in fakes; pool: int64 [B]. M is the largest ratio of the pool, or its quantile, or
    what :func:`budget_cap` gives. A pool without a fake, because the generator holds no image for it, gets 1. Raises
    TrainingError where the ratios of a pool are all 0.
    """
    maxima = torch.ones(pools)
    for number in pool.unique().tolist():
        inside = ratios[pool == number]
        maxima[number] = torch.quantile(inside, rule.number if rule.kind == "quantile" else 1.0)
        if not maxima[number] > 0:
            raise TrainingError(
                f"density ratio: every burn-in fake of label pool {number} has ratio 0, so nothing can be "
                "accepted; raise ratio.steps, or set synthesis.subsampling=none"
            )
        if rule.kind == "budget":
            maxima[number] = budget_cap(inside, rule.number)
    return maxima


def budget_cap(ratios: Tensor, budget: float) -> Tensor:
    """M at which the mean of min(1, h / M) is 1 / ``budget``, float32, for ratios [n] that are not all 0.

    The mean grows as M falls, linearly in 1 / M between the ratios: with the k largest at 1 it is
    (k + (the others' sum) / M) / n, so M is exact. Where fewer ratios than wanted are above 0, all of those pass.
    """
    h = ratios.double().cpu().sort(descending=True).values
    left = len(h) / budget - torch.arange(len(h), dtype=torch.float64)  # what the others must add up to, over M
    others = h.flip(0).cumsum(0).flip(0)
    caps = others[left > 0] / left[left > 0]
    first = int((caps >= h[left > 0] * (1 - 1e-12)).float().argmax())  # the first k whose next one is not above M
    return torch.maximum(caps[first], h[h > 0].min()).float()


def accept(ratios: Tensor, maxima: Tensor, draws: Tensor, rising: bool) -> tuple[Tensor, Tensor]:
    """Which proposals are kept, and the maxima after them.

    ratios: float32 [L, n], proposals of L labels in the order of their index. maxima: float32 [L]. draws: uniform
    [L, n]. Proposal j is kept with probability h / M. Where M is ``rising``, it is the prefix maximum over the
    proposals' indices, so nothing depends on how proposals are cut into batches; else it stays and h is capped.
    """
    if rising:
        bound = torch.cummax(torch.cat([maxima[:, None], ratios], dim=1), dim=1).values[:, 1:]
    else:
        bound = maxima[:, None].expand_as(ratios)
    return draws * bound < ratios, bound[:, -1]


def effective_sample_share(ratios: Tensor) -> float:
    """(sum h)^2 / (n sum h^2): 1 where all fakes weigh alike, 1/n where one carries all; ratios [n]."""
    total = ratios.double()
    squares = float((total**2).sum()) * len(total)
    return float(total.sum()) ** 2 / squares if squares else 0.0
