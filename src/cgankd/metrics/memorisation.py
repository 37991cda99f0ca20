"""Whether generated images are copies: their distances to training images, compared with held-out real images'."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

PERCENTILE = 0.01
FEWEST = 10  # held-out images; with fewer, their smallest distance says nothing


@dataclasses.dataclass(frozen=True)
class Nearness:
    """Distances of fakes to their nearest training image, compared with those of held-out real images.

    The cut-off is an order statistic of the held-out distances. So the share of fakes below it has a known
    distribution if fakes are as new as held-out images: beta-binomial with mean ``expected``.
    """

    distance: Tensor  # float32 [N], each fake's
    row: Tensor  # int64 [N], its nearest training image
    cutoff: float  # the 1st percentile of held-out distances, or the smallest where they are fewer than 100
    share: float  # of fakes with a distance below the cut-off
    expected: float
    p_value: float  # probability of this or a larger share if fakes are as new as held-out images
    typical: float  # median distance of held-out images

    @property
    def median_ratio(self) -> float | None:
        """The median distance of fakes over that of held-out images; None where the latter is 0."""
        return float(self.distance.median()) / self.typical if self.typical > 0 else None


def nearness(distance: Tensor, row: Tensor, held_out: Tensor) -> Nearness:
    """Compare distances to the nearest training image, in one space: pixels or features.

    distance, row: float32 and int64 [N], of the fakes: the distance to the nearest training image, and its row.
    held_out: float32 [M], the distances of ten or more held-out images. A small distance alone is no proof of a copy,
    because blurred and typical images are near many others too.
    """
    from scipy import stats  # takes a second to import

    real = held_out.sort().values
    rank = math.floor(PERCENTILE * (len(real) - 1)) + 1  # of the cut-off, counted from 1
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


def closest(near: Nearness, count: int) -> Tensor:
    """Rows of the ``count`` fakes nearest to a training image, the nearest first; no training image appears twice."""
    nearest_of: dict[int, int] = {}  # training image -> its nearest fake
    for fake in near.distance.argsort(stable=True).tolist():
        nearest_of.setdefault(int(near.row[fake]), fake)
        if len(nearest_of) == count:
            break
    return torch.tensor(list(nearest_of.values()))
