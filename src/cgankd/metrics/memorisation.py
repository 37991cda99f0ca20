"""Whether generated images are copies: how near they lie to training images, beside held-out real images."""

from __future__ import annotations

import dataclasses
import math

import torch
from scipy import stats
from torch import Tensor

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


def nearness(distance: Tensor, row: Tensor, held_out: Tensor) -> Nearness:
    """Compare distances to the nearest training image, in one space: pixels or features.

    distance, row: float32 and int64 [N], of the fakes: how far it is, and which. held_out: float32 [M], how far it is
    from held-out images, ten or more. A small distance alone is no proof: blurred and typical images lie near many
    others too.
    """
    real = held_out.sort().values
    rank = math.floor(PERCENTILE * (len(real) - 1)) + 1  # the cut-off's, counted from 1
    cutoff = float(real[rank - 1])
    closer = int((distance < cutoff).sum())
    return Nearness(
        distance=distance,
        row=row,
        cutoff=cutoff,
        share=closer / len(distance),
        expected=rank / (len(real) + 1),
        p_value=float(stats.betabinom.sf(closer - 1, len(distance), rank, len(real) - rank + 1)),
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
