"""CcGAN's hard and soft vicinity: which real images count as near a scalar label. Drawn for a whole batch at once.

Ding et al., "CcGAN: Continuous Conditional Generative Adversarial Networks for Image Generation" (ICLR 2021), and
METHOD of the paper (arXiv 2104.03164, section 3.1). Labels are targets, on a line or a circle.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cgankd.config.settings import HardVicinity, PaperWidth, SoftVicinity
from cgankd.tasks.axis import LINE, Line

# In half-widths: sqrt(ln 1000). Beyond it the soft weight exp(-d^2 / kappa^2) is below 1e-3 and is ignored.
SOFT_REACH = 2.6283


@dataclasses.dataclass(frozen=True)
class VicinityDraw:
    """For each of B target labels: a real image near it, a fake label near it, and their weights."""

    target: Tensor  # float32 [B], the label that the discriminator gets
    real: Tensor  # int64 [B], rows of the training split
    fake: Tensor  # float32 [B]
    real_weight: Tensor | None  # float32 [B]; None unless the vicinity is soft and drawn uniformly
    fake_weight: Tensor | None


class Vicinity:
    """Windows over sorted training labels.

    labels: float32 [N] on the axis. On a circle the sorted labels are those of three turns, so that a window may pass
    0; it reaches half a turn at most, and so holds each image once. The paper's rule gives every target one half-width,
    a multiple of the widest gap between neighbouring distinct labels. The robust rule [ours, default] gives each target
    its own half-width: the distance that includes its nearest ``neighbours`` images, at least the spacing of distinct
    labels there, at most ``widest``. So an outlier, or many images at one value, can't widen the windows of other
    targets.
    """

    REDRAWS = 20  # of a target's noise, if its window has no image

    def __init__(self, labels: Tensor, settings: HardVicinity | SoftVicinity, axis: Line = LINE) -> None:
        if len(labels) < 2:
            raise ValueError("at least two labels are needed")
        self.settings, self.axis, self.images = settings, axis, len(labels)
        ordered, order = labels.to(torch.float32).sort()
        self.centres, counts = ordered.unique(return_counts=True)  # the labels that targets are drawn around
        self.sorted, self.distinct = axis.unrolled(ordered), axis.unrolled(self.centres)
        self.order, self.counts = order.repeat(axis.turns), counts.repeat(axis.turns)
        rule_of_thumb = 1.06 * axis.spread(labels) * len(labels) ** -0.2
        self.noise = rule_of_thumb if settings.noise is None else settings.noise
        gaps = self.distinct.diff()
        self.widest_gap = float(gaps.max()) if len(gaps) else 1.0

    def half_width(self, target: Tensor) -> Tensor:
        """kappa of each target, float32 [B]; the soft weight is exp(-d^2 / kappa^2)."""
        rule = self.settings.width
        if isinstance(rule, PaperWidth):
            return torch.full_like(target, rule.gaps * self.widest_gap)
        count = min(rule.neighbours, self.images)
        position = torch.searchsorted(self.sorted, target)
        # The nearest `count` sorted labels are contiguous, so compare all runs of `count` labels around the target.
        first = (position[:, None] - count + torch.arange(count + 1)).clamp(0, len(self.sorted) - count)
        low, high = self.sorted[first], self.sorted[first + count - 1]
        nearest = torch.maximum((target[:, None] - low).abs(), (high - target[:, None]).abs()).amin(dim=1)
        positive = torch.finfo(torch.float32).tiny  # where all labels are equal: the soft weight is 1, not 0 / 0
        return torch.maximum(nearest, self._spacing(target)).clamp(positive, rule.widest)

    def _spacing(self, target: Tensor) -> Tensor:
        """Distance to the farther of the two neighbouring distinct labels, at most their gap, float32 [B]."""
        above = torch.searchsorted(self.distinct, target, right=True).clamp(1, max(len(self.distinct) - 1, 1))
        low, high = self.distinct[above - 1], self.distinct[above.clamp(max=len(self.distinct) - 1)]
        return torch.minimum(torch.maximum((target - low).abs(), (high - target).abs()), high - low)

    def reach(self, half_width: Tensor) -> Tensor:
        """The largest distance of an image from its target, float32 [B]."""
        reach = half_width * SOFT_REACH if isinstance(self.settings, SoftVicinity) else half_width
        return reach.clamp(max=self.axis.farthest)

    def noisy(self, size: int, rng: torch.Generator) -> Tensor:
        """Distinct training labels plus noise, float32 [B]."""
        return self._around(self._centres(size, rng), rng)

    def _centres(self, size: int, rng: torch.Generator) -> Tensor:
        return self.centres[torch.randint(len(self.centres), (size,), generator=rng)]

    def _around(self, centres: Tensor, rng: torch.Generator) -> Tensor:
        return self.axis.wrap(centres + self.noise * torch.randn(len(centres), generator=rng))

    def draw(self, size: int, rng: torch.Generator) -> VicinityDraw:
        """One discriminator batch of B = ``size``.

        A target is a distinct label plus noise. If its window has no image, only its noise is drawn again. The real
        image is uniform over the window, the fake label uniform over the window on the axis. Soft vicinity: both
        have the weight exp(-d^2 / kappa^2); or, if the setting ``draw`` is weighted, they are drawn with probabilities
        proportional to it, and have no weights.
        """
        base = self._centres(size, rng)
        target = self._around(base, rng)
        low, high, half_width = self._window(target)
        for _ in range(self.REDRAWS):
            empty = low >= high
            if not empty.any():
                break
            again = self._around(base, rng)
            target = torch.where(empty, again, target)
            low, high, half_width = self._window(target)
        else:  # the distinct label itself always has an image
            target = torch.where(low >= high, base, target)
            low, high, half_width = self._window(target)
        if isinstance(self.settings, SoftVicinity) and self.settings.draw == "weighted":
            real = self._weighted_real(target, half_width, rng)
            return VicinityDraw(target, real, self._weighted_fake(target, half_width, rng), None, None)
        position = low + (torch.rand(size, generator=rng, dtype=torch.float64) * (high - low)).long()
        real = self.order[position]
        reach = self.reach(half_width)
        left, right = self.axis.clip(target - reach), self.axis.clip(target + reach)
        fake = left + torch.rand(size, generator=rng) * (right - left)
        if isinstance(self.settings, HardVicinity):
            return VicinityDraw(target, real, self.axis.wrap(fake), None, None)
        return VicinityDraw(
            target,
            real,
            self.axis.wrap(fake),
            real_weight=torch.exp(-(((self.sorted[position] - target) / half_width) ** 2)),
            fake_weight=torch.exp(-(((fake - target) / half_width) ** 2)),
        )

    def _weighted_real(self, target: Tensor, half_width: Tensor, rng: torch.Generator) -> Tensor:
        """Rows [B], drawn from each window with probabilities proportional to exp(-d^2 / kappa^2).

        First a distinct label, by inverting the cumulative sum of the weights in the window; W is the largest number of
        distinct labels in a window. Then a random image with this label.
        """
        reach = self.reach(half_width)
        low = torch.searchsorted(self.distinct, target - reach)
        high = torch.searchsorted(self.distinct, target + reach, right=True)
        place = low[:, None] + torch.arange(int((high - low).max()))  # [B, W]
        inside = place < high[:, None]
        place = place.clamp(max=len(self.distinct) - 1)
        away = (self.distinct[place].double() - target[:, None]) / half_width[:, None]
        cumulative = (torch.exp(-away.square()) * self.counts[place] * inside).cumsum(dim=1)
        draw = torch.rand(len(target), 1, generator=rng, dtype=torch.float64) * cumulative[:, -1:]
        chosen = low + torch.searchsorted(cumulative, draw, right=True).squeeze(1).clamp(max=place.shape[1] - 1)
        chosen = torch.minimum(chosen, high - 1)
        first = self.counts.cumsum(0) - self.counts
        among = torch.rand(len(target), generator=rng, dtype=torch.float64) * self.counts[chosen]
        return self.order[first[chosen] + among.long()]

    def _weighted_fake(self, target: Tensor, half_width: Tensor, rng: torch.Generator) -> Tensor:
        """Labels [B] from the density exp(-d^2 / kappa^2), truncated to the window on the axis, by inversion."""
        centre, kappa, reach = (value.double() for value in (target, half_width, self.reach(half_width)))
        left, right = self.axis.clip(centre - reach), self.axis.clip(centre + reach)
        below, above = (torch.erf((edge - centre) / kappa) for edge in (left, right))
        draw = below + torch.rand(len(target), generator=rng, dtype=torch.float64) * (above - below)
        return self.axis.wrap(torch.clamp(centre + kappa * torch.erfinv(draw), left, right).float())

    def _window(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each target: first sorted label in its window, one past the last, and kappa."""
        half_width = self.half_width(target)
        reach = self.reach(half_width)
        low = torch.searchsorted(self.sorted, target - reach)
        high = torch.searchsorted(self.sorted, target + reach, right=True)
        return low, high, half_width
