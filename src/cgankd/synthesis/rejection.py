"""Rejection sampling by the density ratio, per label (paper, Algorithm for M1; Goodfellow et al., 1810.06758)."""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.errors import TrainingError


def first_maxima(ratios: Tensor, pool: Tensor, pools: int, quantile: float) -> Tensor:
    """The largest ratio of each pool's burn-in, or its ``quantile``; float32 [pools].

    ratios: float32 [B] of burn-in fakes; pool: int64 [B]. Raises TrainingError where a pool's ratios are all 0.
    """
    maxima = torch.stack([torch.quantile(ratios[pool == number], quantile) for number in range(pools)])
    if (maxima <= 0).any():
        dead = int((maxima <= 0).nonzero()[0])
        raise TrainingError(
            f"density ratio: every burn-in fake of label pool {dead} has ratio 0, so nothing can be accepted; "
            "raise ratio.steps, or set synthesis.subsampling=none"
        )
    return maxima


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
