"""The axis of scalar targets: a line from 0 to 1, or a circle of circumference 1, on which 0 and 1 are one point.

Networks, label embeddings and neighbourhoods of labels ask it for coordinates and distances, and so need no other
distinction between the two.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor


class Line:
    """Targets in [0, 1]."""

    width: ClassVar[int] = 1  # coordinates of a target
    turns: ClassVar[int] = 1  # copies that :meth:`unrolled` gives
    half_waves: ClassVar[float] = 1.0  # half-periods of the slowest sine over the axis
    farthest: ClassVar[float] = math.inf  # the largest distance of two targets

    def coordinates(self, targets: Tensor) -> Tensor:
        """[B] -> [B, width]: the target itself."""
        return targets[:, None]

    def standardised(self, targets: Tensor) -> Tensor:
        """:meth:`coordinates` with mean 0 and variance 1 over the axis, [B] -> [B, width]."""
        return (targets[:, None] - 0.5) * math.sqrt(12.0)

    def wrap(self, targets: Tensor) -> Tensor:
        """Targets that noise moved, as they are."""
        return targets

    def clip(self, targets: Tensor) -> Tensor:
        """The nearest targets on the axis."""
        return targets.clamp(0.0, 1.0)

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of targets."""
        return (first - second).abs()

    def spread(self, targets: Tensor) -> float:
        """The standard deviation of [N] targets."""
        return float(targets.double().std())

    def grid(self, count: int) -> Tensor:
        """``count`` evenly spaced targets, with both ends."""
        return torch.linspace(0.0, 1.0, count)

    def unrolled(self, values: Tensor) -> Tensor:
        """Sorted targets as they lie on a line around [0, 1], sorted, [turns N]."""
        return values


class Circle(Line):
    """Targets in [0, 1), the share of a turn."""

    width = 2
    turns = 3
    half_waves = 2.0
    farthest = 0.5

    def coordinates(self, targets: Tensor) -> Tensor:
        """[B] -> [B, 2]: cosine and sine."""
        angle = 2.0 * math.pi * targets
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def standardised(self, targets: Tensor) -> Tensor:
        return self.coordinates(targets) * math.sqrt(2.0)

    def wrap(self, targets: Tensor) -> Tensor:
        """The same points as targets in [0, 1)."""
        share = targets - targets.floor()
        return torch.where(share < 1.0, share, 0.0)  # rounding gives 1 for a target just below 0

    def clip(self, targets: Tensor) -> Tensor:
        """Targets as they are, because a circle has no ends."""
        return targets

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """The shorter way around, at most 1/2."""
        return self.shortest(first, second).abs()

    def shortest(self, first: Tensor, second: Tensor) -> Tensor:
        """The shorter way from ``second`` to ``first``, in [-1/2, 1/2]."""
        way = first - second
        return way - way.round()

    def spread(self, targets: Tensor) -> float:
        """The root mean square of distances from the mean direction; on a short arc the standard deviation."""
        cosine, sine = self.coordinates(targets.double()).mean(dim=0)
        mean = torch.atan2(sine, cosine) / (2.0 * math.pi)
        return math.sqrt(float(self.distance(targets.double(), mean).square().sum()) / (len(targets) - 1))

    def grid(self, count: int) -> Tensor:
        """``count`` evenly spaced targets from 0 on; 1 is not among them, because it is 0."""
        return torch.arange(count, dtype=torch.float32) / count

    def unrolled(self, values: Tensor) -> Tensor:
        """The turn before, the turn itself and the turn after: a window around a target in [0, 1) never ends."""
        return torch.cat([values - 1.0, values, values + 1.0])


LINE, CIRCLE = Line(), Circle()
