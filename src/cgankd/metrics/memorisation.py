"""Whether generated images are copies: how near they lie to training images, beside held-out real images."""

from __future__ import annotations

import dataclasses
import math

import torch
from scipy import stats
from torch import Tensor

from cgankd.metrics.distances import nearest

PERCENTILE = 0.01
FEWEST = 10  # held-out images: with fewer, their nearest distance says nothing


@dataclasses.dataclass(frozen=True)
class Nearness:
    """Fakes' distances to their nearest training image, against held-out real images' distances to theirs.

    The cut-off is an order statistic of the held-out distances, so that the share of fakes below it, were they as
    new as held-out images, is known exactly: ``expected`` on average, and beta-binomial around it.
    """

    distance: Tensor  # float32 [N], each fake's
    row: Tensor  # int64 [N], its nearest training image
    cutoff: float  # the 1st percentile of held-out distances, or the smallest where they are fewer than 100
    share: float  # of fakes that are nearer than the cut-off
    expected: float
    p_value: float  # chance of as large a share, were the fakes as new as held-out images
    typical: float  # held-out images' median distance

    @property
    def median_ratio(self) -> float | None:
        """The fakes' median distance over the held-out images'; None where the latter is 0."""
        return float(self.distance.median()) / self.typical if self.typical > 0 else None


def nearness(fakes: Tensor, train: Tensor, held_out: Tensor) -> Nearness:
    """Compare in one space: pixels (uint8 [N, C, H, W]) or features (float32 [N, F]).

    Needs ten held-out images or more. A small distance alone is no proof: blurred and typical images lie near many
    others too.
    """
    real = nearest(held_out, train)[0].squeeze(1).sort().values
    distance, row = (found.squeeze(1) for found in nearest(fakes, train))
    rank = math.floor(PERCENTILE * (len(real) - 1)) + 1  # the cut-off's, counted from 1
    cutoff = float(real[rank - 1])
    closer = int((distance < cutoff).sum())
    return Nearness(
        distance=distance,
        row=row,
        cutoff=cutoff,
        share=closer / len(fakes),
        expected=rank / (len(real) + 1),
        p_value=float(stats.betabinom.sf(closer - 1, len(fakes), rank, len(real) - rank + 1)),
        typical=float(real.median()),
    )


def closest(found: Nearness, count: int) -> Tensor:
    """Rows of the ``count`` fakes nearest to a training image, the nearest first, no training image twice."""
    nearest_of: dict[int, int] = {}  # training image -> its nearest fake
    for fake in found.distance.argsort(stable=True).tolist():
        nearest_of.setdefault(int(found.row[fake]), fake)
        if len(nearest_of) == count:
            break
    return torch.tensor(list(nearest_of.values()))
